"""Counters while servers are killed and paused: each increment is counted and reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import process
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
    pytest.mark.timeout(1200),
]

ROUNDS = 5
DEADLINE = 30
"""Seconds; replicas wait 4 to 9 for a lost leader, and again if an election has no winner."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


def test_every_increment_counts_once(cluster: Cluster) -> None:
    entry = counters_failover.options(cluster, DEADLINE=DEADLINE)
    with override_settings(NATS_COUNTERS={"default": entry}):
        figures = counters_failover.run(cluster, Counters(), faults=2)
    print(figures)
    assert figures.retried, figures  # without retries, nothing could be counted twice
    assert figures.lost == figures.too_many == figures.backwards == 0, figures
    # Elections fit into DEADLINE, so no call was refused or had an unknown outcome.
    assert sum(figures.unknown.values()) == figures.refused == 0, figures
    assert figures.longest < DEADLINE + 1


@pytest.fixture
def aliases(own_server: NatsServer) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return entries for two aliases of one stream: "through" a proxy, and "past" it."""
    with Proxy(own_server.port) as proxy:

        def entries(**options: object) -> dict[str, Any]:
            common: dict[str, Any] = {"TOKEN": own_server.token, "STREAM": "C", "STORAGE": "file"}
            common |= {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 60, "DEADLINE": 60}
            return {
                "past": {**common, "LOCATION": own_server.url},
                "through": {**common, "LOCATION": proxy.url, **options},
            }

        entries.proxy = proxy  # type: ignore[attr-defined]
        yield entries
        process.close()


def test_naive_retries_count_some_increments_twice(aliases: Any) -> None:
    """Show that the test above can fail. A killed server may or may not lose acknowledgements,
    so the proxy drops them: more of them than there are "life" increments under way."""
    proxy, lost = aliases.proxy, []

    def lose(data: bytes) -> bool:
        lost.extend([data] * data.count(b"MSG"))
        return b"MSG" in data

    entries, figures = aliases(), counters_failover.Figures()
    with override_settings(NATS_COUNTERS=entries):
        past = Counters("past")
        past.incr("probe")
        load = counters_failover.Load(entries["through"], naive=True)
        try:
            counters_failover.wait_for_life(past, load)
            passing, proxy.lose = proxy.lose, lose
            assert eventually(lambda: len(lost) > counters_failover.PROCESSES)
            proxy.cut()
            proxy.lose = passing
            counters_failover.wait_for_life(past, load)
            load.finish(figures)
        finally:
            load.kill()
        figures.totals = counters_failover.totals(past, counters_failover.NAMES)
    assert figures.too_many > 0, figures


# One lost acknowledgement at a time ----------------------------------------------------------


@pytest.mark.parametrize("naive", [False, True], ids=["exact", "naive"])
def test_an_increment_whose_acknowledgement_is_lost_counts_once(
    aliases: Any, naive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends after the server has counted and before it acknowledges."""
    with override_settings(NATS_COUNTERS=aliases()):
        past, counter = Counter("k", alias="past"), Counter("k", alias="through")
        stream = Counters("through").stream
        if naive:  # one attempt for each call
            monkeypatch.setattr(stream.increments.outage, "deadline", lambda now: now)
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
                    assert lost.wait(60)
                aliases.proxy.cut()
                totals.append(call.result())
        if naive:
            assert past == 2 * ROUNDS
        else:
            assert totals == list(range(1, ROUNDS + 1))
            assert past == ROUNDS
            assert stream.increments.recognised == ROUNDS


def test_a_restarted_server_recognises_an_increment_it_did_not_acknowledge(
    aliases: Any, own_server: NatsServer
) -> None:
    """The server finds the increment's id in its store, even after other increments."""
    with override_settings(NATS_COUNTERS=aliases()):
        past, counter = Counter("k", alias="past"), Counter("k", alias="through")
        stream = Counters("through").stream
        counter.value()  # connected
        with ThreadPoolExecutor(1) as pool:
            with aliases.proxy.losing(b"MSG") as lost:
                call = pool.submit(counter.incr)
                assert eventually(lambda: past == 1)
                assert lost.wait(60)
            for _ in range(stream.config.history - 1):
                past.incr()
            own_server.kill()
            aliases.proxy.cut()
            own_server.start()
            total = call.result()
        assert total == 1
        assert stream.increments.recognised == 1
        assert past == stream.config.history
