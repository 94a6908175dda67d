"""Several real servers that form one cluster."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.support.ports import free_port

MONITORED = 'http: "127.0.0.1:-1"'
"""Configuration that lets a server be asked about itself."""

_PATIENCE = 60
"""Seconds that elections may take, several of them maybe, on a machine that is busy."""


def monitor(server: NatsServer) -> str:
    """Where a MONITORED server tells of itself."""
    (ports,) = (json.loads(each.read_text()) for each in server.directory.glob("*.ports"))
    return str(ports["monitoring"][0])


def ask(server: NatsServer, path: str) -> dict[str, Any]:
    """What a MONITORED server says of itself, at an endpoint such as connz."""
    with urlopen(f"{monitor(server)}/{path}", timeout=5) as response:
        return dict(json.load(response))


def connections(server: NatsServer) -> int:
    """How many clients a MONITORED server has."""
    return int(ask(server, "connz")["num_connections"])


class Cluster:
    """So many servers, which elect a leader for each stream."""

    def __init__(self, size: int, token: str = "cluster") -> None:
        self.token = token
        self._directory = TemporaryDirectory(prefix="nats-cluster-")
        ports = [free_port() for _ in range(size)]
        routes = json.dumps([f"nats://127.0.0.1:{port}" for port in ports])
        self.servers = [
            NatsServer(
                port=free_port(),
                token=token,
                name=f"node-{port}",
                directory=Path(self._directory.name) / str(port),
                config=f'{MONITORED}\ncluster {{ name: c, listen: "127.0.0.1:{port}", '
                f"no_advertise: true, routes: {routes} }}",
            )
            for port in ports
        ]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def __enter__(self) -> Cluster:
        try:
            self.mend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self.servers:
            server.stop(kill=True)
        self._directory.cleanup()

    def mend(self) -> None:
        """Start or resume every server, and wait until streams can be made on all of them."""
        for server in self.servers:
            server.start()
            server.resume()
        assert eventually(self._ready, time.monotonic() + _PATIENCE), "no leader was elected"

    def _ready(self) -> bool:
        # All name one leader, which says of every other that it follows.
        metas = {server.name: ask(server, "jsz").get("meta_cluster", {}) for server in self.servers}
        leaders = {meta.get("leader") for meta in metas.values()}
        peers = metas.get(leaders.pop(), {}).get("replicas", []) if len(leaders) == 1 else []
        return len(peers) == len(self.servers) - 1 and all(
            peer["current"] and not peer.get("offline") for peer in peers
        )

    def wait_for_replicas(self, stream: str) -> None:
        """Wait until every server answers direct gets: followers begin a second or two late."""

        def all_subscribed() -> bool:
            wanted = f"$JS.API.DIRECT.GET.{stream}"
            listings = (ask(server, "subsz?subs=1&limit=10000") for server in self.servers)
            return all(
                any(each["subject"] == wanted for each in listing["subscriptions_list"])
                for listing in listings
            )

        assert eventually(all_subscribed, time.monotonic() + _PATIENCE)

    def leader(self, stream: str) -> NatsServer:
        """The server that leads a stream."""
        found: list[NatsServer] = []

        def look() -> bool:
            for server in self.servers:
                if server.running:
                    details = ask(server, "jsz?streams=1").get("account_details") or []
                    for detail in (each for one in details for each in one["stream_detail"]):
                        if detail["name"] == stream and detail["cluster"].get("leader"):
                            name = detail["cluster"]["leader"]
                            found[:] = [each for each in self.servers if each.name == name]
            return bool(found) and found[0].running

        assert eventually(look, time.monotonic() + _PATIENCE)
        return found[0]
