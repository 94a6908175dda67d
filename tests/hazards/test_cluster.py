"""A stream without a leader: its writes fail fast, its reads go on, and both come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.hazards.test_reconnect import answers, soon
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("test_cluster"),  # one cluster, on one worker
    pytest.mark.timeout(180),
]

TIMEOUT = 0.5
SLACK = 4.0  # seconds for a busy machine; a timeout for each of a view's calls would be ten


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
    assert soon(lambda: answers(maker), 60)
    cluster.wait_for_replicas(f"KV_{bucket}")
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
        outcomes = _view(lambda number: cache.set(f"view-{number}", number))
        assert outcomes != [True] * 20, "the election was over before the test began"
        # A stopped replica is still asked for one read in three, until the others drop it.
        reads = _view(lambda number: cache.get("key"))
        assert how == signal.SIGSTOP or reads == [True] * 20
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
    """Which of 20 calls succeed; in all they take little more than one timeout."""
    started = time.monotonic()
    outcomes = [_succeeds(lambda number=number: call(number)) for number in range(20)]  # type: ignore[misc]
    assert time.monotonic() - started < 1.2 * TIMEOUT + SLACK
    return outcomes


def test_another_server_takes_over(cluster: Cluster) -> None:
    """The client's own server dies: it goes on at another within a second or an election."""
    cache = _made(cluster, "moved", cluster.urls)
    assert soon(lambda: answers(cache), 60)
    leader, (mine, _) = _followers(cluster, "KV_moved")
    cache = _made(cluster, "moved", [mine.url, leader.url])
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


def test_a_replica_that_lags_hides_nothing_from_what_changes_a_value(cluster: Cluster) -> None:
    """Two processes at two servers: what one was told is stored, the other can change."""
    assert soon(lambda: answers(_made(cluster, "lag", cluster.urls)), 60)
    leader, (follower, _) = _followers(cluster, "KV_lag")
    writer = _made(cluster, "lag", leader.url)
    other = _made(cluster, "lag", follower.url)
    assert soon(lambda: answers(writer) and answers(other), 60)
    cluster.wait_for_replicas("KV_lag")
    for number in range(300):
        writer.set(f"deleted-{number}", number)
        assert other.delete(f"deleted-{number}") is True
        writer.set(f"counted-{number}", number)
        assert other.incr(f"counted-{number}") == number + 1
        writer.set(f"touched-{number}", number)
        assert other.touch(f"touched-{number}") is True
