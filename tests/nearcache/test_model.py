"""Concurrent processes never read a value older than one they know of.

Set NEAR_CACHE_EXAMPLES=1000 for a long run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from django_nats.nearcache.follow import Follower
from tests.nearcache import model
from tests.nearcache.fleet import Fleet

EXAMPLES = int(os.environ.get("NEAR_CACHE_EXAMPLES", "0"))
pytestmark = pytest.mark.timeout(900 + 10 * EXAMPLES)


def run(machine: type[model.Model], fleet: Fleet, examples: int, steps: int = 12) -> None:
    """Run a model, with the same examples each time unless NEAR_CACHE_EXAMPLES is set."""
    made = type(machine.__name__, (machine,), {"fleet": fleet})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        made,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=steps,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            # Timing differs from run to run, so a failing example is reported without shrinking.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.faults
@pytest.mark.parametrize("misses", [False, True], ids=["values", "misses too"])
def test_no_read_is_stale(server: NatsServer, misses: bool) -> None:
    with Fleet(server, MAX_STALE=model.MAX_STALE, MISSES=misses) as fleet:
        run(model.Model, fleet, examples=7)


@pytest.mark.faults
def test_no_read_is_stale_with_few_entries(server: NatsServer) -> None:
    """Copies are evicted all the time."""
    with Fleet(server, MAX_STALE=model.MAX_STALE, MISSES=True, MAX_ENTRIES=2) as fleet:
        run(model.Model, fleet, examples=5)


@pytest.mark.faults
def test_no_read_is_stale_while_the_server_pauses(own_server: NatsServer) -> None:
    with Fleet(own_server, MAX_STALE=model.MAX_STALE, MISSES=True, timeout=0.5) as fleet:
        run(model.ModelWithPauses, fleet, examples=3, steps=8)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "touch": lambda cache: cache.touch("key", 60),
    "incr": lambda cache: cache.incr("key"),
    "persist": lambda cache: cache.persist("key"),
    "delete": lambda cache: cache.delete("key"),
    "add": lambda cache: cache.add("key", 3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("found", [None, "text"])
def test_a_read_after_a_change_is_not_older_than_what_the_change_found(
    near: Any, other: NatsCache, change: str, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed has not delivered the other client's change by then."""
    near.set("key", 1, None)
    assert near.get("key") == 1
    monkeypatch.setattr(Follower, "changed", lambda *args: None)
    if found is None:
        other.delete("key")
    else:
        other.set("key", found, None)
    assert near.get("key") == 1
    with suppress(ValueError, TypeError):
        CHANGES[change](near)
    assert near.get("key") == other.get("key")
