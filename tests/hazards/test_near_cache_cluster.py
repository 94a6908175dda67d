"""Copies of a bucket of three replicas, while nodes that its feed depends on die and stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.conftest import api
from tests.hazards.test_reconnect import answers
from tests.support.cluster import Cluster
from tests.support.near_load import ALONE, ROUNDS, Load, soon
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.faults, *ALONE]
HOW = pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


class Replicated:
    """A bucket of three replicas, and which node leads its stream and its feed."""

    def __init__(self, cluster: Cluster, bucket: str) -> None:
        self.cluster = cluster
        self.options = {"BUCKET": bucket, "TOKEN": cluster.token, "REPLICAS": 3}
        self._stream = f"KV_{bucket}"
        self._cache = NatsCache(cluster.urls, {"OPTIONS": {**self.options, "REQUEST_TIMEOUT": 5.0}})
        assert soon(lambda: answers(self._cache))
        cluster.wait_for_replicas(self._stream)

    @property
    def leader(self) -> NatsServer:
        return self.cluster.leader(self._stream)

    @property
    def feeds(self) -> list[NatsServer]:
        """Return the nodes that lead the consumers which send changes to readers."""
        names: list[str] = []

        def find_leaders() -> bool:
            with suppress(Unavailable):
                listing = api(self._cache, f"CONSUMER.LIST.{self._stream}").get("consumers") or []
                names[:] = [each.get("cluster", {}).get("leader", "") for each in listing]
                return bool(names) and all(names)
            return False

        assert soon(find_leaders)
        return [server for server in self.cluster.servers if server.name in names]


def _kill_or_pause(server: NatsServer, how: signal.Signals) -> None:
    server.kill() if how == signal.SIGKILL else server.pause()


@HOW
def test_copies_stay_correct_when_the_streams_leader_is_lost(
    cluster: Cluster, how: signal.Signals
) -> None:
    bucket = Replicated(cluster, f"leader_{how.name}")
    with Load(cluster.servers[0], location=cluster.urls, options=bucket.options, keys=10) as load:
        for _ in range(ROUNDS):
            leader = bucket.leader
            try:
                _kill_or_pause(leader, how)
                load.wait_for_writes(100)  # by now another node leads
                load.write_rare()
            finally:
                cluster.mend()
            load.wait_until_served()
        load.check()


@HOW
def test_copies_are_flushed_when_the_node_of_the_feed_is_lost(
    cluster: Cluster, how: signal.Signals
) -> None:
    """The readers' own node still answers their requests and pings."""
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
                assert soon(
                    lambda: len(bucket.feeds) == 1
                )  # the previous consumer is removed later
            (feed_leader,) = bucket.feeds
            with load.flushing() as flushed:
                try:
                    _kill_or_pause(feed_leader, how)
                    assert soon(flushed)
                finally:
                    cluster.mend()
        load.check()
