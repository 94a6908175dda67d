"""Counters while servers die and hang: each increment counts once, and the caller is told so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import bridge
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable
from tests.hazards import counters_failover
from tests.servers import eventually
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("test_counters_failover"),  # one cluster, on one worker
    pytest.mark.timeout(240),
]

ROUNDS = 5
DEADLINE = 30
"""Seconds: servers wait 4 to 9 for a leader that is gone, and again where nobody wins."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        bridge.close()


def test_every_increment_counts_once(cluster: Cluster) -> None:
    entry = counters_failover.options(cluster, DEADLINE=DEADLINE)
    with override_settings(NATS_COUNTERS={"default": entry}):
        figures = counters_failover.run(cluster, Counters(), faults=2)
    print(figures)
    assert figures.retried, figures  # else there was nothing to be counted twice
    assert figures.lost == figures.too_many == figures.backwards == 0, figures
    # Elections fit into DEADLINE: nobody was told that it is over, or that nobody knows.
    assert sum(figures.unknown.values()) == figures.refused == 0, figures
    assert figures.longest < DEADLINE + 1


def test_the_same_load_with_naive_retries_counts_twice(cluster: Cluster) -> None:
    """So that the test above would notice."""
    entry = counters_failover.options(cluster, PREFIX="naive", STREAM="NAIVE")
    with override_settings(NATS_COUNTERS={"default": entry}):
        figures = counters_failover.run(
            cluster, Counters(), faults=16, naive=True, until_twice=True
        )
    assert figures.too_many > 0, figures


# One lost acknowledgement at a time ----------------------------------------------------------


@pytest.fixture
def aliases(own_server: NatsServer) -> Iterator[Callable[..., dict[str, Any]]]:
    """Two ways to one stream: through a proxy, and past it."""
    with Proxy(own_server.port) as proxy:

        def entries(**options: object) -> dict[str, Any]:
            common = {"TOKEN": own_server.token, "STREAM": "C", "STORAGE": "file"}
            common |= {"CONNECT_TIMEOUT": 10, "REQUEST_TIMEOUT": 10}
            return {
                "past": {**common, "LOCATION": own_server.url},
                "through": {**common, "LOCATION": proxy.url, **options},
            }

        entries.proxy = proxy  # type: ignore[attr-defined]
        yield entries
        bridge.close()


@pytest.mark.parametrize("naive", [False, True], ids=["exact", "naive"])
def test_the_acknowledgement_is_lost(
    aliases: Any, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time, between the server's counting and its word of it, the connection ends."""
    with override_settings(NATS_COUNTERS=aliases()):
        past, counter = Counter("k", alias="past"), Counter("k", alias="through")
        stream = Counters("through").stream
        if naive:  # one attempt for each call
            monkeypatch.setattr(stream, "_deadline", lambda now: now)
        past.reset()

        def incr() -> int:
            while True:
                try:
                    return counter.incr()
                except CounterUnavailable:
                    assert naive

        totals = []
        with ThreadPoolExecutor(1) as pool:
            for _ in range(ROUNDS):
                counter.value()  # connected
                before = past.value()
                with aliases.proxy.losing(b"MSG") as lost:
                    call = pool.submit(incr)
                    assert eventually(lambda before=before: past > before)  # type: ignore[misc]
                    assert lost.wait(10)
                aliases.proxy.cut()
                totals.append(call.result())
        if naive:
            assert past == 2 * ROUNDS
        else:
            assert totals == list(range(1, ROUNDS + 1))
            assert past == ROUNDS
            assert stream.recognised == ROUNDS


def test_a_lone_server_dies_before_its_word(aliases: Any, own_server: NatsServer) -> None:
    """It finds the increment's id again in what it has stored, also when others came after."""
    with override_settings(NATS_COUNTERS=aliases()):
        past, counter = Counter("k", alias="past"), Counter("k", alias="through")
        stream = Counters("through").stream
        counter.value()  # connected
        with ThreadPoolExecutor(1) as pool:
            with aliases.proxy.losing(b"MSG") as lost:
                call = pool.submit(counter.incr)
                assert eventually(lambda: past == 1)
                assert lost.wait(10)
            for _ in range(stream.config.history - 1):
                past.incr()
            own_server.kill()
            aliases.proxy.cut()
            own_server.start()
            total = call.result()
        assert total == 1
        assert stream.recognised == 1
        assert past == stream.config.history
