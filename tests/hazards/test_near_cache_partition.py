"""Copies in a process whose node is cut off from the others of its cluster, and looks alive."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from tests.conftest import api
from tests.hazards.test_reconnect import answers
from tests.support.cluster import MONITORED, free_port
from tests.support.near_load import Load, soon
from tests.support.proxy import Proxy

NODES = range(3)
TOKEN = "cluster"
BUCKET = "partition"

pytestmark = pytest.mark.timeout(180)


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


def test_a_node_that_is_cut_off_does_not_have_its_copies_served(divided: Divided) -> None:
    """Neither its clients' pings nor its own heartbeats tell that it hears of nothing any more."""
    urls = [server.url for server in divided.servers]
    options = {"BUCKET": BUCKET, "TOKEN": TOKEN, "REPLICAS": 3}
    plain = NatsCache(urls, {"OPTIONS": options})
    assert soon(lambda: answers(plain))
    leader = api(plain, f"STREAM.INFO.KV_{BUCKET}")["cluster"]["leader"]
    lonely = next(server for server in divided.servers if server.name != leader)
    others = [server.url for server in divided.servers if server is not lonely]

    def tells() -> bool:
        """Whether that node is the one that tells of changes."""
        consumers = api(plain, f"CONSUMER.LIST.KV_{BUCKET}")["consumers"]
        return [each["cluster"]["leader"] for each in consumers] == [lonely.name]

    with (
        Proxy(lonely.port, delay=0.0005) as proxy,
        Load(
            lonely,
            location=others,
            read_through=proxy.url,
            options=options,
            readers=1,
            keys=10,
            pause=0.2,
            delete_every=0,
        ) as load,
    ):
        for _ in range(20):  # the cluster chooses the node by chance
            if tells():
                break
            with load.flushing():
                proxy.cut()
            soon(tells, 1)
        assert tells()
        divided.cut_off(lonely)
        load.wait_for_writes(400)  # for several times MAX_STALE
        divided.mend()
        load.wait_until_served()
        load.check()
