"""Watchers of a bucket's change feed, and forged messages in the feed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.feed.watcher import Watcher
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import NatsError


class Recorder:
    """A listener of a watcher that records every call in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        """Revisions of changes, and "opened" and "shut" when the state changed."""
        self.heard = threading.Event()
        """Set when a change is delivered."""
        self.positions: list[int] = []
        """For each feed that was opened, the sequence after which it reports every change."""
        self.proofs: list[float] = []
        self.stored = 0
        """The sequence up to which the leader had the stream at the last proof."""
        self.refusals: list[NatsError] = []
        self.ends: list[NatsError] = []

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        return {"deliver_policy": "new"}

    def opened(self, position: int) -> None:
        self.positions.append(position)
        self.events.append("opened")

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        self.events.append(revision)
        self.heard.set()

    def proven(self, moment: float, stored: int) -> None:
        self.stored = stored
        self.proofs.append(moment)

    def shut(self) -> None:
        if self.events[-1:] == ["opened"] or isinstance((self.events or [""])[-1], int):
            self.events.append("shut")

    def refused(self, error: NatsError) -> None:
        self.refusals.append(error)

    def ended(self, error: NatsError) -> None:
        self.ends.append(error)

    @property
    def lives(self) -> int:
        """Return the number of feeds that have been opened."""
        return self.events.count("opened")

    @property
    def revisions(self) -> list[int]:
        return [each for each in self.events if isinstance(each, int)]


class Following:
    """A running watcher of all keys of a cache's bucket."""

    def __init__(
        self,
        cache: NatsCache,
        within: float = 2.0,
        *,
        recorder: Recorder | None = None,
        wait: bool = True,
    ) -> None:
        config = cache.config
        self.recorder = recorder or Recorder()
        self.watcher: Watcher = process.watcher(
            config.connection,
            config.bucket,
            [f"$KV.{config.bucket.name}.>"],
            self.recorder,
            within,
        )
        self.watcher.start()
        if wait:
            self.wait_for(lambda: bool(self.recorder.proofs))

    @property
    def control(self) -> str:
        """Return the subject to which the feed is delivered."""
        assert self.watcher._feed is not None
        return self.watcher._feed._control.decode()

    @property
    def consumer(self) -> str:
        assert self.watcher._feed is not None
        return self.watcher._feed._name

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        assert eventually(condition, time.monotonic() + seconds), (
            self.watcher,
            self.recorder.events[-10:],
        )

    def stop(self) -> None:
        self.watcher.stop()
        self.wait_for(lambda: not self.watcher.started)


def publish(server: NatsServer, subject: bytes) -> None:
    """Store a message on a subject of any bytes."""
    with _connected(server) as sock:
        _exchange(sock, b"PUB %b 1\r\nx\r\n" % subject)


def forge(server: NatsServer, subject: str, *, header: str) -> None:
    """Publish a message with this header. Return after the server has accepted it."""
    block = f"{header}\r\n".encode()
    with _connected(server) as sock:
        size = len(block)
        _exchange(sock, f"HPUB {subject} {size} {size}\r\n".encode() + block + b"\r\n")


@contextmanager
def listening(server: NatsServer, subject: str) -> Iterator[socket.socket]:
    """Yield a socket that receives the messages of a subject, as subscription 1."""
    with _connected(server) as sock:
        _exchange(sock, f"SUB {subject} 1\r\n".encode())
        yield sock


def _connected(server: NatsServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    login = {"verbose": False, "auth_token": server.token, "headers": True}
    _exchange(sock, f"CONNECT {json.dumps(login)}\r\n".encode())
    return sock


def _exchange(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data + b"PING\r\n")
    answered = b""
    while b"PONG\r\n" not in answered:
        answered += sock.recv(4096)
    assert b"-ERR" not in answered, answered
