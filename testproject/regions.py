"""Servers of several regions, as the regions page needs them: a hub, and a leaf node for each."""

from __future__ import annotations

import atexit
import json
import secrets
import socket
import threading
from contextlib import suppress

from django_nats.devserver import NatsServer


class Regions:
    """NATS servers on 127.0.0.1, which have their ports from the beginning, and run when asked to.

    Each is a JetStream domain of its own name. They end with the process, and so does what they
    have stored.
    """

    def __init__(self, hub: str, *leaves: str) -> None:
        self._token = secrets.token_urlsafe(24)
        self._starting = threading.Lock()
        port = _free_port()
        login = {"user": "leaf", "password": self._token}
        listen = {"listen": f"127.0.0.1:{port}", "no_advertise": True, "authorization": login}
        remote = {"url": f"nats://leaf:{self._token}@127.0.0.1:{port}"}
        self._servers = {hub: self._server(hub, listen)}
        for leaf in leaves:
            self._servers[leaf] = self._server(leaf, {"remotes": [remote]})
        # Settings make this before anything of the client is imported, and what is registered
        # first is called last: the connections are closed by then.
        atexit.register(self.stop)

    def _server(self, domain: str, leafnodes: dict[str, object]) -> NatsServer:
        sections = {"jetstream": {"domain": domain}, "leafnodes": leafnodes}
        config = "\n".join(f"{name}: {json.dumps(each)}" for name, each in sections.items())
        return NatsServer(token=self._token, name=domain, port=_free_port(), config=config)

    def place(self, region: str) -> dict[str, str]:
        """The options of NATS_COUNTERS that say where a region's server is."""
        return {"LOCATION": self._servers[region].url, "TOKEN": self._token}

    @property
    def running(self) -> bool:
        return all(server.running for server in self._servers.values())

    def start(self) -> None:
        """Start what does not run, in about a third of a second. Raises DevServerError."""
        with self._starting:
            for server in self._servers.values():
                server.start()

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


def _free_port() -> int:
    """A port nobody listens on; below those that systems give to connections, any of which might
    have it when the server is to start."""
    for _ in range(100):
        port = 15_000 + secrets.randbelow(17_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("No port between 15,000 and 32,000 can be listened at")
