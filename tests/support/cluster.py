"""Several real NATS servers that form one cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.support.ports import free_port

MONITORED = 'http: "127.0.0.1:-1"'
"""Configuration that opens a server's monitoring port."""

_PATIENCE_S = 240
"""How long several elections may take on a busy machine."""


def monitor(server: NatsServer) -> str:
    """Return the URL of the monitoring port of a MONITORED server."""
    (ports,) = (json.loads(each.read_text()) for each in server.directory.glob("*.ports"))
    return str(ports["monitoring"][0])


def ask(server: NatsServer, path: str) -> dict[str, Any]:
    """Return the document of a monitoring endpoint, such as connz, of a MONITORED server."""
    with urlopen(f"{monitor(server)}/{path}", timeout=60) as response:
        return dict(json.load(response))


def connections(server: NatsServer) -> int:
    """Return the number of clients of a MONITORED server."""
    return int(ask(server, "connz")["num_connections"])


class Cluster:
    """``size`` servers that elect a leader for each stream.

    With ``hosts``, each listens on an address of its own, and all on one port. With ``announce``,
    they announce each other to their clients. ``config`` is a part of the configuration of each.
    """

    def __init__(
        self,
        size: int,
        token: str = "cluster",
        *,
        hosts: Sequence[str] = (),
        announce: bool = False,
        config: str = "",
    ) -> None:
        self.token = token
        self._directory = TemporaryDirectory(prefix="nats-cluster-")
        ports = [free_port() for _ in range(size)]
        routes = json.dumps([f"nats://127.0.0.1:{port}" for port in ports])
        shared = free_port()
        listen = [f"{host}:{shared}" for host in hosts] or [
            f"127.0.0.1:{free_port()}" for _ in range(size)
        ]
        no_advertise = json.dumps(not announce)
        self.servers = [
            NatsServer(
                port=int(address.rpartition(":")[2]),
                token=token,
                name=f"node-{port}",
                directory=Path(self._directory.name) / str(port),
                config=f'{MONITORED}\ncluster {{ name: c, listen: "127.0.0.1:{port}", '
                f"no_advertise: {no_advertise}, routes: {routes} }}\n"
                f'listen: "{address}"\n{config}',
            )
            for port, address in zip(ports, listen, strict=True)
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
        """Start or resume every server, and wait until streams can be created on all of them."""
        for server in self.servers:
            server.start()
            server.resume()
        assert eventually(self._ready, time.monotonic() + _PATIENCE_S), "no leader was elected"

    def _ready(self) -> bool:
        # All servers name one leader, and the leader reports every other as a current follower.
        metas = {server.name: ask(server, "jsz").get("meta_cluster", {}) for server in self.servers}
        leader_names = {meta.get("leader") for meta in metas.values()}
        peers = (
            metas.get(leader_names.pop(), {}).get("replicas", []) if len(leader_names) == 1 else []
        )
        return len(peers) == len(self.servers) - 1 and all(
            peer["current"] and not peer.get("offline") for peer in peers
        )

    def wait_for_replicas(self, stream: str) -> None:
        """Wait until every server answers direct gets. Followers start a second or two late."""

        def all_subscribed() -> bool:
            wanted = f"$JS.API.DIRECT.GET.{stream}"
            listings = (ask(server, "subsz?subs=1&limit=10000") for server in self.servers)
            return all(
                any(each["subject"] == wanted for each in listing["subscriptions_list"])
                for listing in listings
            )

        assert eventually(all_subscribed, time.monotonic() + _PATIENCE_S)

    def leader(self, stream: str) -> NatsServer:
        """Return the server that leads a stream, once there is one."""
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

        assert eventually(look, time.monotonic() + _PATIENCE_S)
        return found[0]
