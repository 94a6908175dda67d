"""Copies in a process whose node is partitioned from its cluster but still answers pings."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import api
from tests.support.cluster import MONITORED
from tests.support.near_load import ALONE, Load, soon
from tests.support.ports import free_port
from tests.support.proxy import Proxy

NODES = range(3)
TOKEN = "cluster"
BUCKET = "partition"
MAX_STALE = 1.0
"""Seconds; less than it takes until the node notices that its stream has no leader."""

pytestmark = [pytest.mark.faults, *ALONE]


class Route(Proxy):
    """A proxy between two nodes; it passes the route protocol on without parsing it."""

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Divided:
    """Three nodes whose routes to each other can be cut."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        ports = [free_port() for _ in NODES]
        self._routes = {
            (one, other): stack.enter_context(Route(ports[other]))
            for one in NODES
            for other in NODES
            if one != other
        }
        self.servers = []
        for node in NODES:
            urls = [route.url for (one, _), route in self._routes.items() if one == node]
            server = NatsServer(
                token=TOKEN,
                name=f"n{node}",
                directory=directory / str(node),
                config=f"{MONITORED}\ncluster {{ name: divided, no_advertise: true, pool_size: -1, "
                f'listen: "127.0.0.1:{ports[node]}", routes: {json.dumps(urls)} }}',
            )
            self.servers.append(server)
            stack.callback(server.stop, kill=True)
            server.start()

    def cut_off(self, server: NatsServer) -> None:
        node = self.servers.index(server)
        for ends, route in self._routes.items():
            if node in ends:
                route.refusing = True
                route.cut()

    def mend(self) -> None:
        for route in self._routes.values():
            route.refusing = False


@pytest.fixture
def divided(tmp_path: Path) -> Iterator[Divided]:
    with ExitStack() as stack:
        stack.callback(process.close)
        yield Divided(stack, tmp_path)


def _answers(cache: NatsCache) -> bool:
    """Return True if the bucket answers; it does not while the nodes still form a cluster."""
    try:
        cache.get("probe")
    except NatsError:
        return False
    return True


def test_copies_fed_by_a_partitioned_node_are_not_served(divided: Divided) -> None:
    """Neither client pings nor consumer heartbeats show that the node receives no changes."""
    urls = [server.url for server in divided.servers]
    options = {"BUCKET": BUCKET, "TOKEN": TOKEN, "REPLICAS": 3}
    plain = NatsCache(
        urls, {"OPTIONS": {**options, "CONNECT_TIMEOUT": 30.0, "REQUEST_TIMEOUT": 5.0}}
    )
    assert soon(lambda: _answers(plain))
    lonely, *others = divided.servers

    def api_answer(subject: str) -> dict[str, Any]:
        """Return the API's answer, or {} while a leader is elected."""
        try:
            return api(plain, subject)
        except NatsError:
            return {}

    def feeds() -> list[dict[str, Any]]:
        """Return the consumers that have a subscriber; the server keeps others for a while."""
        listing = api_answer(f"CONSUMER.LIST.KV_{BUCKET}").get("consumers") or []
        return [each for each in listing if each.get("push_bound")]

    def only_feed() -> dict[str, Any]:
        """Return the only feed, once the server has noticed the end of the previous one."""
        found: list[dict[str, Any]] = []

        def find_feed() -> bool:
            found[:] = feeds()
            return len(found) == 1 and bool(found[0].get("cluster", {}).get("leader"))

        assert soon(find_feed)
        return found[0]

    def leads_no_stream() -> bool:
        """Return True if another node leads the stream; a partitioned leader may lead on."""
        leader = api_answer(f"STREAM.INFO.KV_{BUCKET}").get("cluster", {}).get("leader")
        return leader not in (None, "", lonely.name)

    def has_other_feed(previous: str) -> bool:
        return [each["name"] for each in feeds()] not in ([], [previous])

    with (
        Proxy(lonely.port, delay=0.0005) as proxy,
        Load(
            lonely,
            location=[server.url for server in others],
            read_through=proxy.url,
            options=options,
            near={"MAX_STALE": MAX_STALE},
            readers=1,
            keys=10,
            pause=0.2,
            delete_every=0,
        ) as load,
    ):
        # The cluster picks the feed's node at random: retry until it is the reader's own node.
        for _ in range(50):
            feed = only_feed()
            if feed["cluster"]["leader"] == lonely.name:
                load.wait_until_served()
                while not leads_no_stream():
                    api_answer(f"STREAM.LEADER.STEPDOWN.KV_{BUCKET}")
                    soon(leads_no_stream, 5)
                load.wait_until_served()
                if only_feed()["name"] == feed["name"] and leads_no_stream():
                    break
            proxy.cut()
            assert soon(lambda name=feed["name"]: has_other_feed(name))  # type: ignore[misc]
        else:
            pytest.fail("The reader's node was never chosen")
        divided.cut_off(lonely)
        load.wait_for_writes(600)  # takes several times MAX_STALE
        divided.mend()
        load.wait_until_served()
        load.check(MAX_STALE)
