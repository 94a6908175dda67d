"""A cache whose use of the socket and wakeups of the loop are counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport import shared_socket
from django_nats.client.transport.connection import Connection
from django_nats.client.transport.incoming import Incoming
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.session import Session
from django_nats.client.transport.shared_socket import SharedSocket
from tests.conftest import MakeCache

T = TypeVar("T")


alone = pytest.mark.skipif(not shared_socket.AVAILABLE, reason="only the loop reads without epoll")


_PATIENCE = 60.0  # seconds after which a call counts as hung


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restart the background thread, with an event loop of asyncio or uvloop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    monkeypatch.setenv("DJANGO_NATS_LOOP", request.param)
    process.close()
    yield
    process.close()


class Watched:
    """Counts of the reads of each thread, and of the wakeups of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readers: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        receive = Incoming.receive

        def noted(incoming: Incoming, piece: list[bytes]) -> None:
            self.readers[threading.get_ident()] += 1
            receive(incoming, piece)

        monkeypatch.setattr(Incoming, "receive", noted)
        for kind, name in ((SharedSocket, "_readable"), (Session, "_flush"), (Connection, "send")):
            self._count(monkeypatch, kind, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        original = getattr(kind, name)

        def counted(*args: Any) -> Any:
            self.asked[name] += 1
            return original(*args)

        monkeypatch.setattr(kind, name, counted)

    def begin(self) -> None:
        self.readers.clear()
        self.asked.clear()


@pytest.fixture
def watched(loop: None, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture
def cache(loop: None, watched: Watched, make_cache: MakeCache) -> NatsCache:
    cache = make_cache()
    cache.set("key", "value")
    return cache


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let callers read until their answers arrive, even if the machine is slow."""
    monkeypatch.setattr(shared_socket, "READ_PATIENCE_S", _PATIENCE)


def loops_switches() -> int:
    """Return the number of times that the loop's thread has gone to sleep."""
    thread = loop_thread._thread
    assert thread is not None
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("voluntary_ctxt"))
    return int(line.split()[1])
