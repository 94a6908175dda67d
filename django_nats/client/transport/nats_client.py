"""nats-py's client, made to log in over a transport that is open already.

It depends on private names of nats-py, which nats_py.py lists.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from ...exceptions import NotSent
from .greeting import OpenTransport


class NatsClient(Client):
    """A client that is not connected. Every method runs on the loop on which it was made."""

    # nats-py's. It is None before log_in(), and never after.
    _transport: Any

    def __init__(self) -> None:
        """Make a client that open() connects."""
        super().__init__()
        self._logging_in = False
        self.scheme = ""
        """That of the server's URL."""
        self.announced: list[str] = []
        """The servers of the cluster, as host:port, that the server has last announced."""
        self.announced_in_plain = False
        """Whether it has done so in the INFO that comes before TLS."""

    async def open(self, server: str, transport: OpenTransport, options: dict[str, Any]) -> None:
        """Log in to a server that is connected to. Raise what nats-py or the socket raised."""
        raise NotImplementedError

    async def log_in(self, server: str, transport: OpenTransport, **options: Any) -> None:
        """Log in, with one attempt, and the options of nats-py's connect()."""
        self._transport = transport
        self._logging_in = True
        try:
            await self.connect(servers=[server], allow_reconnect=False, **options)
        finally:
            self._logging_in = False

    async def _connect_to_server(self, s: Any) -> None:
        self.scheme = s.uri.scheme
        if not self._logging_in:  # otherwise the transport is connected
            await super()._connect_to_server(s)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        needs_tls = "tls" in self.options or self.scheme == "tls"
        before_tls = initial_connection and not self.options["tls_handshake_first"]
        if before_tls and needs_tls:
            # nats-py leaves the choice to the server, and would send credentials in the clear.
            if not (info.get("tls_required") or info.get("tls_available")):
                raise NotSent("the server offers no TLS, which the settings ask for")
            info["tls_required"] = True
        # nats-py's own list keeps those that have gone as well.
        if urls := info.get("connect_urls"):
            self.announced = urls
            self.announced_in_plain = before_tls  # anyone on the way can have changed it
        await super()._process_info(info, initial_connection)

    def abort(self) -> None:
        """Close the socket at once, and end nats-py's tasks."""
        # nats-py's close() would wait until the buffer is empty, even if the server does not read.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def descriptors(self) -> list[int]:
        """Return the file descriptors, which a forked child closes."""
        return [] if self._transport is None else list(self._transport.descriptors)
