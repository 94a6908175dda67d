"""A stream without a leader: writes fail fast, reads go on, and both recover."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.conftest import PATIENT, api
from tests.hazards.test_reconnect import answers, soon
from tests.support.cluster import Cluster
from tests.support.patience import hurry

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("test_cluster"),  # one cluster, on one worker
    pytest.mark.timeout(1200),
]

TIMEOUT = 2.0
"""Seconds that a request waits for a missing leader."""
VIEW_LIMIT = 10 * TIMEOUT
"""Seconds for 20 calls; if each waited for a timeout, they would take twice as long."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


def _followers(cluster: Cluster, stream: str) -> tuple[NatsServer, list[NatsServer]]:
    leader = cluster.leader(stream)
    return leader, [server for server in cluster.servers if server is not leader]


def _cache(cluster: Cluster, bucket: str, location: object) -> NatsCache:
    options = {"BUCKET": bucket, "TOKEN": cluster.token, "REPLICAS": 3, **PATIENT}
    return NatsCache(location, {"OPTIONS": options})


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_calls_wait_once_for_the_next_leader_and_then_succeed(
    cluster: Cluster, how: signal.Signals
) -> None:
    bucket = f"led_{how.name}"
    maker = _cache(cluster, bucket, cluster.urls)
    assert soon(lambda: answers(maker), 60)
    cluster.wait_for_replicas(f"KV_{bucket}")
    leader, others = _followers(cluster, f"KV_{bucket}")
    # Connect to a server that stays up, so that only the stream fails, not the connection.
    cache = _cache(cluster, bucket, [server.url for server in others])
    cache.set("key", "value")
    assert soon(lambda: cache.get("key") == "value")
    hurry(cache, TIMEOUT)

    if how == signal.SIGKILL:
        leader.kill()
    else:
        leader.pause()
    try:
        # One call waits for the next leader and may succeed; the others do not wait again.
        _view(lambda number: cache.set(f"view-{number}", number))

        def reads() -> bool:
            return _view(lambda number: cache.get("key")) == [True] * 20

        # A stopped replica is still sent one read in three until the others drop it. Reads
        # that were on their way to a killed replica are lost.
        assert reads() or how == signal.SIGSTOP or soon(reads)
        assert soon(lambda: _succeeds(lambda: cache.set("after", 1)), 60)
        assert soon(lambda: _succeeds(lambda: cache.get("after")))
    finally:
        cluster.mend()
    assert soon(lambda: answers(maker), 60)


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return False
    return True


def _view(call: Callable[[int], object]) -> list[bool]:
    """Return which of 20 calls succeed; together they take little more than one timeout."""
    started = time.monotonic()
    outcomes = [_succeeds(lambda number=number: call(number)) for number in range(20)]  # type: ignore[misc]
    assert time.monotonic() - started < VIEW_LIMIT
    return outcomes


def test_calls_with_a_long_timeout_wait_for_the_next_leader(cluster: Cluster) -> None:
    """Covers sets, conditional writes, reads of the leader, and reads of counters."""
    options = {"BUCKET": "patient", "TOKEN": cluster.token, "REPLICAS": 3, "REQUEST_TIMEOUT": 60.0}
    alias = {"TOKEN": cluster.token, "REPLICAS": 3, "STREAM": "PATIENT"}
    alias.update(REQUEST_TIMEOUT=60.0, DEADLINE=60.0)
    maker = NatsCache(cluster.urls, {"OPTIONS": options})
    maker.set("key", 1)
    with override_settings(NATS_COUNTERS={"default": {**alias, "LOCATION": cluster.urls}}):
        Counters().incr("counter")
    cluster.wait_for_replicas("KV_patient")
    cluster.wait_for_replicas("PATIENT")
    leader, others = _followers(cluster, "KV_patient")
    urls = [server.url for server in others]
    cache = NatsCache(urls, {"OPTIONS": {**options, "READS": "leader"}})
    assert cache.get("key") == 1

    async def calls() -> list[Any]:
        return await asyncio.gather(
            *(cache.aset(f"key-{number}", number) for number in range(10)),
            *(cache.aset_many({"a": 1, "b": 2}), cache.aadd("new", 1), cache.aincr("key")),
            *(cache.aget("key-0"), cache.aget_many(["none"])),
        )

    leader.kill()
    try:
        assert soon(lambda: _loss_is_noticed(cache))
        *_, failed, added, counted, _, missing = asyncio.run(calls())
        assert (failed, added, counted, missing) == ([], True, 2, {})
    finally:
        cluster.mend()

    # The leader of the counters' stream; the client connects to the others.
    leader, others = _followers(cluster, "PATIENT")
    location = {"LOCATION": [server.url for server in others]}
    with override_settings(NATS_COUNTERS={"default": {**alias, **location}}):
        counters = Counters()
        assert counters.incr("counter") == 2  # a replica that lags would not have this
        leader.kill()
        try:
            assert counters.get_many(["counter"]) == {"counter": 2}
            assert counters.incr("counter") == 3
            assert counters.matching(">") == {"counter": 3}
        finally:
            cluster.mend()


def _loss_is_noticed(cache: NatsCache) -> bool:
    """Return True once a write is answered, so the others have noticed that the leader is gone."""

    def steps() -> Steps[object]:
        return (yield Request(Lane("a test's own", 1.0), "$KV.patient.=noticed"))

    return _succeeds(lambda: drivers.run(cache.session, steps()))


def test_a_client_whose_server_dies_moves_to_another(cluster: Cluster) -> None:
    """The client reconnects to another server within a second or an election."""
    cache = _cache(cluster, "moved", cluster.urls)
    assert soon(lambda: answers(cache), 60)
    leader, (mine, _) = _followers(cluster, "KV_moved")
    cache = _cache(cluster, "moved", [mine.url, leader.url])
    assert soon(lambda: answers(cache), 60)
    port = cache.session._connection.connected_url.port  # type: ignore[union-attr]
    connected = next(server for server in cluster.servers if server.port == port)
    connected.kill()
    try:
        assert soon(lambda: answers(cache), 60)
        moved = cache.session._connection.connected_url.port  # type: ignore[union-attr]
        assert moved != port
    finally:
        cluster.mend()


def test_writes_through_a_lagging_replica_see_acknowledged_values(cluster: Cluster) -> None:
    """A value acknowledged to one client can be changed at once by a client of another server."""
    assert soon(lambda: answers(_cache(cluster, "lag", cluster.urls)), 60)
    leader, (follower, _) = _followers(cluster, "KV_lag")
    writer = _cache(cluster, "lag", leader.url)
    other = _cache(cluster, "lag", follower.url)
    assert soon(lambda: answers(writer) and answers(other), 60)
    cluster.wait_for_replicas("KV_lag")
    for number in range(300):
        writer.set(f"deleted-{number}", number)
        assert other.delete(f"deleted-{number}") is True
        writer.set(f"counted-{number}", number)
        assert other.incr(f"counted-{number}") == number + 1
        writer.set(f"touched-{number}", number)
        assert other.touch(f"touched-{number}") is True


def test_a_listing_cancelled_while_its_consumer_is_created_leaves_no_consumer(
    cluster: Cluster,
) -> None:
    """The meta leader creates the consumer; the deletion may reach another server first."""
    assert soon(lambda: answers(_cache(cluster, "listed", cluster.urls)), 60)
    _, (follower, _) = _followers(cluster, "KV_listed")
    cache = _cache(cluster, "listed", follower.url)
    assert soon(lambda: answers(cache), 60)

    async def cancelled_listing() -> None:
        task = asyncio.ensure_future(cache.akeys())
        await asyncio.sleep(0)  # until the request is sent
        task.cancel()
        await asyncio.wait([task])

    async def many() -> None:
        for _ in range(200):
            await cancelled_listing()

    asyncio.run(many())
    cache.keys()  # its consumer is created after all of theirs

    def no_consumer_left() -> bool:
        found = api(cache, "CONSUMER.NAMES.KV_listed")
        return found.get("consumers") == []

    # Sooner than by the server's inactivity threshold, which is half a minute.
    assert soon(lambda: _succeeds(no_consumer_left) and no_consumer_left(), 20)
