"""A connected pair of sockets, one of which a loop and callers read in turn."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from django_nats.client.transport import shared_socket
from django_nats.client.transport.shared_socket import SharedSocket
from django_nats.devserver.files import eventually

_PATIENCE = 60.0  # seconds after which a call counts as hung


class Reader:
    """A caller that may read."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.at_rest = False


def _ignore(data: bytes) -> None:
    pass


class Peer:
    """A shared socket on a loop's thread, its far end, and a record of what was received."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.settimeout(_PATIENCE)
        self.loop = loop
        self.received = b""
        self.readers: list[int] = []
        self.failures: list[BaseException] = []
        self.came = threading.Semaphore(0)
        self.intact = False
        self.on_received: Callable[[bytes], None] = _ignore
        self.loops_thread = self.on_loop(threading.get_ident)
        self.shared: SharedSocket = self.on_loop(
            lambda: SharedSocket(
                self.near.fileno(), loop, self._take, self._fail, lambda piece: self.intact
            )
        )

    def on_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(_PATIENCE)

    def _take(self, piece: list[bytes]) -> None:
        (data,) = piece
        self.on_received(data)
        self.received += data
        self.readers.append(threading.get_ident())
        self.came.release()

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.loop.call_soon_threadsafe(self.shared.close)
        self.came.release()

    def has(self, count: int) -> bool:
        """Return True if at least this number of bytes has arrived in total."""
        return len(self.received) >= count

    def wait(self) -> None:
        assert self.came.acquire(timeout=_PATIENCE)

    def read_here(self, until: int) -> None:
        """Read as a caller does, until this number of bytes has arrived in total."""
        reader = Reader()
        give_up = time.monotonic() + _PATIENCE
        while not self.shared.begin_reading(reader):  # the loop is reading
            assert time.monotonic() < give_up
        try:
            self.shared.read_until(reader, partial(self.has, until))
        finally:
            self.shared.end_reading(reader)

    def close(self) -> None:
        self.on_loop(self.shared.close)
        self.near.close()
        self.far.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    if request.param == "uvloop":
        loop = pytest.importorskip("uvloop").new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def peer(loop: asyncio.AbstractEventLoop) -> Iterator[Peer]:
    peer = Peer(loop)
    yield peer
    peer.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let callers wait until bytes arrive, even if the machine is slow."""
    monkeypatch.setattr(shared_socket, "READ_PATIENCE_S", _PATIENCE)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def assert_reading(peer: Peer) -> None:
    """Wait until a caller has begun to read."""
    begun = eventually(lambda: bool(peer.shared._holder), time.monotonic() + _PATIENCE)
    assert begun, "no caller has begun to read"
