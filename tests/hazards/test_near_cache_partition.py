"""Copies in a process whose node is cut off from the others of its cluster, and looks alive."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import api
from tests.support.cluster import MONITORED
from tests.support.near_load import Load, soon
from tests.support.ports import free_port
from tests.support.proxy import Proxy

NODES = range(3)
TOKEN = "cluster"
BUCKET = "partition"

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


class Route(Proxy):
    """Between two nodes, whose protocol has verbs of its own."""

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Divided:
    """Three nodes that reach each other by routes that can be cut."""

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
        stack.callback(bridge.close)
        yield Divided(stack, tmp_path)


def _answers(cache: NatsCache) -> bool:
    """Not so while the nodes still look for each other."""
    try:
        cache.get("probe")
    except NatsError:
        return False
    return True


def test_a_node_that_is_cut_off_does_not_have_its_copies_served(divided: Divided) -> None:
    """Neither its clients' pings nor its own heartbeats tell that it hears of nothing any more."""
    urls = [server.url for server in divided.servers]
    options = {"BUCKET": BUCKET, "TOKEN": TOKEN, "REPLICAS": 3}
    plain = NatsCache(urls, {"OPTIONS": options})
    assert soon(lambda: _answers(plain))
    lonely, *others = divided.servers

    def feeds() -> list[dict[str, Any]]:
        """Those that somebody listens to; others are kept for a while."""
        listing = api(plain, f"CONSUMER.LIST.KV_{BUCKET}")["consumers"]
        return [each for each in listing if each.get("push_bound")]

    def follows() -> bool:
        """Whether it is another that leads the stream: who is cut off may lead on for a while."""
        leader = api(plain, f"STREAM.INFO.KV_{BUCKET}")["cluster"].get("leader")
        return leader not in (None, "", lonely.name)

    def is_told_anew(by: str) -> bool:
        return [each["name"] for each in feeds()] not in ([], [by])

    with (
        Proxy(lonely.port, delay=0.0005) as proxy,
        Load(
            lonely,
            location=[server.url for server in others],
            read_through=proxy.url,
            options=options,
            readers=1,
            keys=10,
            pause=0.2,
            delete_every=0,
        ) as load,
    ):
        # The cluster chooses by chance who tells of changes: it is to be the reader's own node.
        for _ in range(50):
            (feed,) = feeds()
            if feed["cluster"]["leader"] == lonely.name:
                break
            proxy.cut()
            assert soon(lambda told=feed["name"]: is_told_anew(told))  # type: ignore[misc]
        else:
            pytest.fail("The reader's node was never chosen")
        while not follows():
            api(plain, f"STREAM.LEADER.STEPDOWN.KV_{BUCKET}")
            soon(follows, 5)
        load.wait_until_served()
        assert follows()
        assert [each["name"] for each in feeds()] == [feed["name"]]
        divided.cut_off(lonely)
        load.wait_for_writes(300)  # for several times MAX_STALE
        divided.mend()
        load.wait_until_served()
        load.check()
