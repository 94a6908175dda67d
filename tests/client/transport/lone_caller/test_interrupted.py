"""A lone caller that is interrupted anywhere by a signal handler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import django_nats.client
from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport import shared_socket
from django_nats.client.transport.shared_socket import PIECE_BYTES, SharedSocket
from django_nats.devserver.files import eventually
from django_nats.exceptions import NotSent, Unavailable
from tests.client.transport.lone_caller.conftest import _PATIENCE, T, alone
from tests.conftest import MakeCache
from tests.support.interrupting import interrupted

# Interrupted ---------------------------------------------------------------------------------

_CLIENT = str(Path(django_nats.client.__file__).parent)


def within_reason(function: Callable[[], T]) -> T:
    """Call a function in a new thread, which is abandoned if it hangs. Return its result."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    (result,) = results
    return result


@alone
@pytest.mark.parametrize("most", [PIECE_BYTES, 10])
def test_an_interrupted_caller_seldom_ends_the_connection(
    loop: None, cache: NatsCache, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The caller is interrupted before it writes, in the middle of a frame, and while it reads.

    The connection is lost only at the few lines at which the position of the parser is unknown.
    """
    send = SharedSocket.send

    def some(shared: SharedSocket, data: bytes, taken: list[int]) -> None:
        send(shared, data[:most], taken)

    monkeypatch.setattr(SharedSocket, "send", some)
    monkeypatch.setattr(
        shared_socket, "READ_PATIENCE_S", _PATIENCE
    )  # otherwise the loop takes over on a slow machine
    cache.set("key", "value")
    lines = uninterrupted = 0
    lost: list[str] = []

    def answers() -> bool:
        try:
            return bool(cache.get("key") == "value")
        except Unavailable:
            return False

    while uninterrupted < 5:  # a get that runs beside another request, even a ping, has fewer lines
        assert eventually(answers, time.monotonic() + _PATIENCE)
        connection = cache.session._connection
        assert connection is not None
        where = interrupted(lambda: cache.get("key"), lines + 1, _CLIENT)
        if not where:
            uninterrupted += 1
            continue
        lines += 1
        uninterrupted = 0
        settle()
        if connection.lost.done():
            lost.append(where.removeprefix(_CLIENT))
    assert lines > 100
    assert len(lost) < 10, lost


@alone
def test_a_handler_that_has_interrupted_a_write_is_refused(cache: NatsCache) -> None:
    """The interrupted call is that of a task, since a blocking call has the right to read.

    If the server were slow, the handler would wait for the loop, and the loop for the lock.
    """
    connection = cache.session._connection
    assert connection is not None
    with connection.outstanding.lock, pytest.raises(NotSent, match="handler has interrupted"):
        cache.get("key")
    assert cache.get("key") == "value"


def settle() -> None:
    """Wait until the loop has run everything that was queued."""
    process.settle(_PATIENCE)


@alone
@pytest.mark.parametrize(
    ("operation", "company"),
    [("get", False), ("get", True), ("get_many", False), ("set_many", False)],
    ids=["get alone", "get in company", "get_many alone", "set_many alone"],
)
def test_a_caller_interrupted_anywhere_leaves_a_working_connection(
    loop: None, make_cache: MakeCache, operation: str, company: bool
) -> None:
    """The caller is interrupted at each line of a call in turn. A stuck connection times out."""
    cache = make_cache(OPTIONS={"REQUEST_TIMEOUT": 60})
    values = {f"key:{number}": "value" for number in range(5)}
    cache.set_many({"key": "value", **values})
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: cache.get("key"),
        "get_many": lambda: cache.get_many(values),
        "set_many": lambda: cache.set_many(values),
    }
    stop = threading.Event()

    def others() -> None:
        while not stop.wait(0.0001):
            try:
                assert cache.get("key") == "value"
            except Unavailable:
                pass  # while it reconnects

    def call(at: int) -> str:
        try:
            return interrupted(calls[operation], at, _CLIENT)
        except Unavailable:
            return "while it reconnects"

    def answers() -> bool:
        try:
            return cache.get("key") == "value" and cache.get_many(values) == values
        except Unavailable:
            return False

    at = uninterrupted = 0
    other = threading.Thread(target=others, daemon=True)
    if company:
        other.start()
    while uninterrupted < 5:  # a call beside another request, even a ping, has fewer lines
        at += 1
        where = within_reason(lambda: call(at))  # noqa: B023
        uninterrupted = 0 if where else uninterrupted + 1
        assert within_reason(lambda: eventually(answers, time.monotonic() + _PATIENCE)), where
    stop.set()
    if company:
        other.join(_PATIENCE)
    assert not other.is_alive()
    assert at > 30  # in company, another thread may read the answers
    assert eventually(lambda: cache.session.waiters == 0, time.monotonic() + _PATIENCE)
