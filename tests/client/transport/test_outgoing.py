"""Outgoing bytes are never reordered, cut or sent twice, even when a caller is interrupted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_nats.client.transport.outgoing import Outgoing
from django_nats.client.transport.pending import Outstanding
from django_nats.client.transport.shared_socket import PIECE_BYTES

FRAME = b"PUB subject reply 5\r\nvalue\r\n"


class Interruption(Exception):
    pass


class FakeSocket:
    """A socket that accepts a part of the data that a caller sends, and may then raise."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        self.most = most
        self.error = error
        self.got = b""

    def send(self, data: bytes, taken: list[int]) -> None:
        if self.most:
            taken.append(min(self.most, len(data)))
            self.got += data[: self.most]
        if self.error is not None:
            raise self.error


class FakeLink:
    """A connection whose transport records the data that is written to it."""

    def __init__(self) -> None:
        self.outstanding = Outstanding(lambda sid: None)
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.failures: list[BaseException] = []
        self.flows = 0
        self.got = b""
        self.waiting = 0
        self.closed = False
        self._io_writer: Any = self
        self.transport: Any = self

    def lose(self, error: Exception) -> None:
        self.failures.append(error)

    def fail_from_anywhere(self, error: BaseException) -> None:
        self.failures.append(error)

    def note_flow(self) -> None:
        self.flows += 1

    def write(self, data: bytes) -> None:
        self.got += data

    def get_write_buffer_size(self) -> int:
        return self.waiting


@pytest.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
async def outgoing(link: FakeLink) -> Outgoing:
    made = Outgoing(link)
    made.attach(link)
    return made


async def until_looked() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_bytes_that_the_system_accepts_have_left(link: FakeLink, outgoing: Outgoing) -> None:
    socket: Any = FakeSocket(PIECE_BYTES)
    assert outgoing.reserve(len(FRAME)) == len(FRAME)
    outgoing.send(FRAME, socket)
    assert outgoing.is_clear()
    assert outgoing.sent_bytes() == len(FRAME)
    await until_looked()
    assert (socket.got, link.got) == (FRAME, b"")


@pytest.mark.parametrize("most", [0, 1, len(FRAME) - 1])
async def test_the_loop_sends_the_rest_before_anything_else(
    link: FakeLink, outgoing: Outgoing, most: int
) -> None:
    socket: Any = FakeSocket(most)
    outgoing.reserve(len(FRAME))
    outgoing.send(FRAME, socket)
    assert not outgoing.is_clear()
    assert outgoing.sent_bytes() == most
    outgoing.write(b"PING\r\n")
    await until_looked()
    assert socket.got + link.got == FRAME + b"PING\r\n"
    assert outgoing.is_clear()


async def test_large_writes_are_left_to_the_loop(link: FakeLink, outgoing: Outgoing) -> None:
    socket: Any = FakeSocket(2 * PIECE_BYTES)
    large = b"x" * (PIECE_BYTES + 1)
    outgoing.reserve(len(large))
    outgoing.send(large, socket)
    await until_looked()
    assert (socket.got, link.got) == (b"", large)


@pytest.mark.parametrize("most", [1, len(FRAME) - 1, len(FRAME)])
async def test_the_rest_of_an_interrupted_write_follows(
    link: FakeLink, outgoing: Outgoing, most: int
) -> None:
    socket: Any = FakeSocket(most, Interruption())
    outgoing.reserve(len(FRAME))
    with pytest.raises(Interruption):
        outgoing.send(FRAME, socket)
    assert outgoing.is_clear() is (most == len(FRAME))
    outgoing.write(b"PING\r\n")
    assert socket.got + link.got == FRAME + b"PING\r\n"
    assert link.failures == []


async def test_nothing_is_sent_for_a_caller_interrupted_before_its_write(
    link: FakeLink, outgoing: Outgoing
) -> None:
    socket: Any = FakeSocket(0, Interruption())
    outgoing.reserve(len(FRAME))
    with pytest.raises(Interruption):
        outgoing.send(FRAME, socket)
    outgoing.write(b"PING\r\n")
    assert link.got == b"PING\r\n"
    assert outgoing.sent_bytes() == 0


async def test_a_failing_socket_ends_the_connection(link: FakeLink, outgoing: Outgoing) -> None:
    error = BrokenPipeError(32, "Broken pipe")
    socket: Any = FakeSocket(0, error)
    outgoing.send(FRAME, socket)
    assert link.failures == [error]


async def test_no_caller_writes_while_the_transport_has_bytes(
    link: FakeLink, outgoing: Outgoing
) -> None:
    outgoing.write(FRAME)
    assert not outgoing.is_clear()  # the transport may be sending them
    await until_looked()
    assert outgoing.is_clear()
    link.waiting = 1
    outgoing.write(FRAME)
    await until_looked()
    assert not outgoing.is_clear()


async def test_a_flow_of_many_bytes_is_noted(link: FakeLink, outgoing: Outgoing) -> None:
    link.waiting = outgoing.reserve(1_000_000)
    before = outgoing.flowed_at
    assert outgoing.sent_bytes() == 0
    assert (link.flows, outgoing.flowed_at) == (0, before)
    link.waiting = 500_000
    assert outgoing.sent_bytes() == 500_000
    assert link.flows == 1
    assert outgoing.flowed_at >= before


async def test_the_rest_is_sent_once_if_the_caller_is_interrupted_late(
    link: FakeLink, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte was accepted, so the loop must send them all after the caller has given up."""

    def interrupted(*_: object) -> None:
        raise Interruption

    socket: Any = FakeSocket(0)
    outgoing.reserve(len(FRAME))
    with monkeypatch.context() as patched:
        patched.setattr(outgoing._loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(Interruption):
            outgoing.send(FRAME, socket)
    outgoing.write(b"PING\r\n")
    assert link.got == FRAME + b"PING\r\n"
    assert outgoing.sent_bytes() == len(FRAME)


async def test_a_transport_that_raises_once_closed_means_a_lost_connection(
    link: FakeLink, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop's do, in words of their own."""

    def refuse(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(link, "write", refuse)
    outgoing.write(b"PING\r\n")
    (error,) = link.failures
    assert isinstance(error, ConnectionResetError)
    assert str(error) == "the server has closed the connection"
