"""Copies of a bucket of three replicas, while the nodes die and stop that its feed depends on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from tests.conftest import api
from tests.hazards.test_reconnect import answers
from tests.support.cluster import Cluster
from tests.support.near_load import ROUNDS, Load, soon
from tests.support.proxy import Proxy

pytestmark = [
    pytest.mark.faults,
    pytest.mark.xdist_group("test_near_cache_cluster"),  # one cluster, on one worker
    pytest.mark.timeout(180 * ROUNDS),
]
HOW = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        bridge.close()


class Replicated:
    """A bucket of three replicas, and who has which part in it."""

    def __init__(self, cluster: Cluster, bucket: str) -> None:
        self.cluster = cluster
        self.options = {"BUCKET": bucket, "TOKEN": cluster.token, "REPLICAS": 3}
        self._stream = f"KV_{bucket}"
        self._cache = NatsCache(cluster.urls, {"OPTIONS": self.options})
        assert soon(lambda: answers(self._cache))
        cluster.wait_for_replicas(self._stream)

    @property
    def leader(self) -> NatsServer:
        return self.cluster.leader(self._stream)

    @property
    def feeds(self) -> list[NatsServer]:
        """The nodes that tell readers of changes."""
        listing = api(self._cache, f"CONSUMER.LIST.{self._stream}")["consumers"]
        names = [each["cluster"]["leader"] for each in listing]
        return [server for server in self.cluster.servers if server.name in names]


def _hit(server: NatsServer, how: signal.Signals) -> None:
    server.kill() if how == signal.SIGKILL else server.pause()


@HOW
def test_the_streams_leader_is_gone(cluster: Cluster, how: signal.Signals) -> None:
    bucket = Replicated(cluster, f"leader_{how.name}")
    with Load(cluster.servers[0], location=cluster.urls, options=bucket.options, keys=10) as load:
        for _ in range(ROUNDS):
            leader = bucket.leader
            try:
                _hit(leader, how)
                load.wait_for_writes(100)  # another leads by now
                load.write_rare()
            finally:
                cluster.mend()
            load.wait_until_served()
        load.check()


@HOW
def test_the_node_that_tells_of_changes_is_gone(cluster: Cluster, how: signal.Signals) -> None:
    """The readers' own node goes on answering them, and their pings, too."""
    bucket = Replicated(cluster, f"feed_{how.name}")
    near_by = cluster.servers[0]
    with (
        Proxy(near_by.port, delay=0.0005) as proxy,
        Load(
            near_by,
            location=cluster.urls,
            read_through=proxy.url,
            options=bucket.options,
            readers=1,
            keys=10,
        ) as load,
    ):
        for _ in range(ROUNDS):
            while near_by in bucket.feeds:
                with load.flushing():
                    proxy.cut()
                assert soon(lambda: len(bucket.feeds) == 1)
            (told_by,) = bucket.feeds
            with load.flushing() as flushed:
                try:
                    _hit(told_by, how)
                    assert soon(flushed)
                finally:
                    cluster.mend()
        load.check()
