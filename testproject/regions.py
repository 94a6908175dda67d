"""The servers of the regions page: a hub, and a leaf node for each region."""

from __future__ import annotations

import atexit
import json
import secrets
import socket
import threading
from contextlib import suppress

from django_nats.devserver import NatsServer


class Regions:
    """NATS servers on 127.0.0.1, whose ports are chosen before they are started.

    Each server is a JetStream domain, named after the server. The servers end with the process,
    and what they have stored is deleted.
    """

    def __init__(self, hub: str, *leaves: str) -> None:
        """Choose the ports, without starting a server."""
        self._token = secrets.token_urlsafe(24)
        self._starting = threading.Lock()
        port = _free_port()
        login = {"user": "leaf", "password": self._token}
        listen = {"listen": f"127.0.0.1:{port}", "no_advertise": True, "authorization": login}
        remote = {"url": f"nats://leaf:{self._token}@127.0.0.1:{port}"}
        self._servers = {hub: self._server(hub, listen)}
        for leaf in leaves:
            self._servers[leaf] = self._server(leaf, {"remotes": [remote]})
        # Settings create this object before the client is imported. Functions at exit run in
        # reverse order, so the client has closed its connections when the servers stop.
        atexit.register(self.stop)

    def _server(self, domain: str, leafnodes: dict[str, object]) -> NatsServer:
        sections = {"jetstream": {"domain": domain}, "leafnodes": leafnodes}
        config = "\n".join(f"{name}: {json.dumps(each)}" for name, each in sections.items())
        return NatsServer(token=self._token, name=domain, port=_free_port(), config=config)

    def place(self, region: str) -> dict[str, str]:
        """Return the options of NATS_COUNTERS for the server of a region."""
        return {"LOCATION": self._servers[region].url, "TOKEN": self._token}

    @property
    def running(self) -> bool:
        """Return True if all servers are running."""
        return all(server.running for server in self._servers.values())

    def start(self) -> None:
        """Start the servers that are not running, which takes about a third of a second.

        Raises DevServerError if one of them does not start.
        """
        with self._starting:
            for server in self._servers.values():
                server.start()

    def stop(self) -> None:
        """Stop all servers."""
        for server in self._servers.values():
            server.stop()


def _free_port() -> int:
    """Return a port on which no program listens.

    It is below the ports that systems assign to outgoing connections, one of which could take it
    before the server starts.
    """
    for _ in range(100):
        port = 15_000 + secrets.randbelow(17_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("No free port was found between 15,000 and 32,000")
