"""A server that closes connections at a chosen point of their login."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

POINTS = ("greeted", "refused", "handshake", "asked", "denied", "accepted")
"""What has happened before the server closes a connection. "handshake" is for TLS only."""
_NOW = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a socket resets its connection."""


class Ending(NamedTuple):
    """How the server ends each login."""

    point: str
    reset: bool
    tls: ssl.SSLContext | None = None
    asks_certificate: bool = False


class ClosingServer:
    """A server on 127.0.0.1 that serves one connection after the other."""

    def __init__(self, ending: Ending) -> None:
        self.connected = threading.Event()
        """To be set once the client has connected. The server begins then."""
        self.closed = threading.Event()
        """Set once the server has closed a connection."""
        self._ending = ending
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator[ClosingServer]:
        """Serve until the block ends."""
        serving = threading.Thread(target=self._serve)
        serving.start()
        try:
            yield self
        finally:
            self.connected.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            serving.join()
            self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer = self._listener.accept()[0]
                # Otherwise a part may wait for an acknowledgement, and be lost by the reset.
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connected.wait()
                peer = self._talk(peer)
                if self._ending.reset:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
                peer.close()
                self.closed.set()

    def _talk(self, peer: socket.socket) -> socket.socket:
        """Go on until the point is reached. Return the socket to close."""
        point, _, tls, asks_certificate = self._ending
        more = b',"tls_required":true' if tls is not None else b""
        more += b',"tls_verify":true' if asks_certificate else b""
        greeting = b'INFO {"server_id":"closing","version":"2.15.1","max_payload":1048576%b}\r\n'
        refusal = b"-ERR 'maximum connections exceeded'\r\n" if point == "refused" else b""
        peer.sendall(greeting % more + refusal)
        if point in ("greeted", "refused"):
            return peer
        if tls is not None:
            peer = tls.wrap_socket(peer, server_side=True)
            if point == "handshake":
                return peer
        received = b""
        while b"PING\r\n" not in received:
            received += peer.recv(10_000)
        if point == "denied":
            peer.sendall(b"-ERR 'Authorization Violation'\r\n")
        elif point == "accepted":
            peer.sendall(b"PONG\r\n")
        return peer
