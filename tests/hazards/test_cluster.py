"""A stream without a leader: its writes fail fast, its reads go on, and both come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.hazards.test_reconnect import answers, soon
from tests.support.cluster import Cluster

pytestmark = pytest.mark.timeout(180)

TIMEOUT = 0.5
READ = 0.3
"""Seconds a read may take while others elect."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        bridge.close()


def _followers(cluster: Cluster, stream: str) -> tuple[NatsServer, list[NatsServer]]:
    leader = cluster.leader(stream)
    return leader, [server for server in cluster.servers if server is not leader]


def _made(cluster: Cluster, bucket: str, location: object) -> NatsCache:
    options = {"BUCKET": bucket, "TOKEN": cluster.token, "REPLICAS": 3, "REQUEST_TIMEOUT": TIMEOUT}
    return NatsCache(location, {"OPTIONS": options})


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_streams_leader_is_gone(cluster: Cluster, how: signal.Signals) -> None:
    bucket = f"led_{how.name}"
    maker = _made(cluster, bucket, cluster.urls)
    assert soon(lambda: answers(maker), 30)
    leader, others = _followers(cluster, f"KV_{bucket}")
    # By a server that stays: what is seen is the stream's trouble, not the connection's.
    cache = _made(cluster, bucket, [server.url for server in others])
    cache.set("key", "value")
    assert soon(lambda: cache.get("key") == "value")

    if how == signal.SIGKILL:
        leader.kill()
    else:
        leader.pause()
    try:
        started = time.monotonic()
        failed = 0
        for number in range(20):
            try:
                cache.set(f"view-{number}", number)
            except Unavailable:
                failed += 1
        assert failed, "the election was over before the test began"
        assert time.monotonic() - started < 1.2 * TIMEOUT
        answered = 0
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            try:
                answered += cache.get("key") == "value"
            except Unavailable:
                pass  # asked of the replica that is gone, until the others have noticed
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < TIMEOUT + READ
        assert soon(lambda: _writes(cache), 30)
        assert cache.get("after") == 1
    finally:
        if how == signal.SIGKILL:
            leader.start()
        else:
            leader.resume()
    assert answered, "no read was answered while the stream had no leader"
    assert soon(lambda: answers(maker), 30)


def _writes(cache: NatsCache) -> bool:
    try:
        cache.set("after", 1)
    except Unavailable:
        return False
    return True


def test_another_server_takes_over(cluster: Cluster) -> None:
    """The client's own server dies: it goes on at another within a second or an election."""
    cache = _made(cluster, "moved", cluster.urls)
    assert soon(lambda: answers(cache), 30)
    leader, (mine, _) = _followers(cluster, "KV_moved")
    cache = _made(cluster, "moved", [mine.url, leader.url])
    assert soon(lambda: answers(cache), 30)
    port = cache.session._connection.connected_url.port  # type: ignore[union-attr]
    connected = next(server for server in cluster.servers if server.port == port)
    connected.kill()
    try:
        assert soon(lambda: answers(cache), 30)
        moved = cache.session._connection.connected_url.port  # type: ignore[union-attr]
        assert moved != port
    finally:
        connected.start()
