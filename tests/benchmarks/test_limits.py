"""The benchmark of limits checks what every limiter lets through and counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest
from django.core.cache import cache as default_cache

pytest.importorskip("psutil")

from django_nats.devserver import NatsServer
from django_nats.limits import Decision, Limit
from tests.benchmarks import counting, servers
from tests.benchmarks.contestants import (
    CONTESTANTS,
    COUNTER,
    DJANGO_RATELIMIT,
    DRF_THROTTLE,
    LIMIT,
    LIMIT_FLOOR,
    LIMITS,
    LOCMEM,
)
from tests.benchmarks.lab import Lab
from tests.benchmarks.limiting import DAY_S, FIXED, SLIDING, limiter
from tests.benchmarks.questions import limits
from tests.counters.conftest import PATIENT

OURS = [
    each
    for each in CONTESTANTS
    if each.name in (LIMIT, COUNTER, LIMIT_FLOOR, LOCMEM) and all(map(find_spec, each.needs))
]
BRIEF = 0.001
NEEDS = {DRF_THROTTLE: "rest_framework", DJANGO_RATELIMIT: "django_ratelimit", LIMITS: "limits"}


@pytest.fixture
def cache(own_server: NatsServer, settings: Any) -> counting.CounterCache:
    entry = {"LOCATION": own_server.url, "TOKEN": own_server.token, "STORAGE": "memory"}
    settings.NATS_COUNTERS = {"default": {**entry, **PATIENT}}
    return counting.CounterCache("", {})


@pytest.fixture
def in_process(settings: Any) -> Iterator[Any]:
    """Yield a cache in the process, where the limiters of other packages count."""
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "memory://"}}
    yield default_cache
    default_cache.clear()


def let_all_through(*args: object) -> Decision:
    """Let a hit through, and count nothing."""
    return Decision(True)


def test_every_cell_is_measured_with_a_real_server() -> None:
    with ExitStack() as stack:
        running, left_out = stack.enter_context(servers.start(["nats"]))
        assert not left_out
        lab = stack.enter_context(Lab(running, span=0.01, quick=True))
        for cell in limits.cells(quick=True):
            cell["processes"] = min(cell.get("processes", 1), 2)
            for contestant in OURS:
                if limits.takes_part(contestant, cell):
                    figures = limits.measure(lab, contestant, cell)
                    assert all(map(math.isfinite, figures.values())), (contestant.name, cell)


@pytest.mark.parametrize("algorithm", [SLIDING, FIXED])
def test_a_limit_that_does_not_count_is_detected(
    cache: counting.CounterCache, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = {"algorithm": algorithm, "keys": limits.ONE, "rates": 2, "seconds": BRIEF}
    assert limits.hits(cache, name=LIMIT, **cell)["p50_us"] > 0
    monkeypatch.setattr(Limit, "hit", let_all_through)
    with pytest.raises(ValueError, match="wrong result: 0 after"):
        limits.hits(cache, name=LIMIT, **cell)
    cell["keys"] = limits.NEW
    with pytest.raises(ValueError, match="wrong result: a first hit"):
        limits.hits(cache, name=LIMIT, **cell)


def test_a_limit_that_refuses_nothing_is_detected(
    cache: counting.CounterCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.refusals(cache, name=LIMIT, seconds=BRIEF)["p50_us"] > 0
    count_once: Callable[..., Decision] = Limit.hit
    monkeypatch.setattr(
        Limit, "hit", lambda limit, key: Decision(bool(count_once(limit, key)) or True)
    )
    with pytest.raises(ValueError, match="wrong result: a hit gave"):
        limits.refusals(cache, name=LIMIT, seconds=BRIEF)


def test_a_hit_that_is_lost_is_detected(cache: counting.CounterCache) -> None:
    kind = {"name": LIMIT, "algorithm": SLIDING}
    limiter(LIMIT, cache, ((10**9, DAY_S),), SLIDING).hit("key")
    assert limits.confirm(cache, key="key", total=1, **kind) == {"counted_percent": 100}
    with pytest.raises(ValueError, match="wrong result: 1 after 2 hits"):
        limits.confirm(cache, key="key", total=2, **kind)


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("algorithm", [SLIDING, FIXED])
def test_a_limiter_of_another_package_counts_and_refuses(
    in_process: Any, name: str, algorithm: str
) -> None:
    pytest.importorskip(NEEDS[name])
    limited = limiter(name, in_process, ((2, DAY_S),), algorithm)
    assert [bool(limited.hit("key")) for _ in range(3)] == [True, True, False]
    assert limited.counted("key") >= 2
    assert limited.hit("another")


def test_only_the_throttle_of_drf_may_lose_hits(in_process: Any) -> None:
    pytest.importorskip("rest_framework")
    limiter(DRF_THROTTLE, in_process, ((9, DAY_S),), SLIDING).hit("key")
    found = limits.confirm(in_process, name=DRF_THROTTLE, algorithm=SLIDING, key="key", total=2)
    assert found == {"counted_percent": 50}
