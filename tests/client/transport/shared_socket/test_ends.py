"""A shared socket that is closed, or whose reader is interrupted."""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from django_nats.client.protocol.parser import ProtocolError
from django_nats.client.transport import shared_socket
from django_nats.client.transport.shared_socket import is_interruption
from tests.client.transport.shared_socket.conftest import _PATIENCE, Peer, Reader, assert_reading
from tests.support.interrupting import Interruption, interrupted

pytestmark = pytest.mark.skipif(not shared_socket.AVAILABLE, reason="epoll is Linux's")

# Ends and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_the_loop_notices_the_end(peer: Peer, reset: bool) -> None:
    if reset:  # because of unread bytes, the system resets the other side
        peer.on_loop(lambda: peer.near.send(b"unread"))
    peer.far.close()
    peer.wait()
    peer.on_loop(lambda: None)
    assert isinstance(peer.failures[0], ConnectionResetError)
    assert (peer.failures[0].errno == errno.ECONNRESET) is reset


@pytest.mark.parametrize("how", ["end", "close"])
def test_a_reading_caller_notices_the_end(peer: Peer, patient: None, how: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(peer.read_here, 1)
        assert_reading(peer)
        if how == "end":
            peer.far.close()
        else:
            peer.on_loop(peer.shared.close)
        reading.result(_PATIENCE / 2)
    assert all(isinstance(each, ConnectionResetError) for each in peer.failures)
    assert peer.failures
    assert not any(is_interruption(each) for each in peer.failures)
    peer.on_loop(lambda: None)
    assert peer.shared.descriptors == (-1, -1)


def test_a_socket_can_be_closed_twice(peer: Peer) -> None:
    peer.on_loop(peer.shared.close)
    peer.on_loop(peer.shared.close)
    assert peer.shared.descriptors == (-1, -1)
    assert not peer.shared.begin_reading(Reader())


def test_bytes_that_are_not_the_protocol_end_the_socket(peer: Peer, patient: None) -> None:
    def refuse(data: bytes) -> None:
        raise ProtocolError(data.decode())

    peer.on_received = refuse
    peer.far.sendall(b"HTTP/1.1 400")
    peer.wait()
    peer.on_loop(lambda: None)
    assert [str(each) for each in peer.failures] == ["HTTP/1.1 400"]
    assert peer.shared.descriptors == (-1, -1)


def test_a_caller_that_reads_invalid_bytes_gets_no_error(peer: Peer, patient: None) -> None:
    """The caller's waiter gets the error, like all waiters of the connection."""

    def refuse(data: bytes) -> None:
        raise ProtocolError(data.decode())

    peer.on_received = refuse
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(peer.read_here, 1)
        assert_reading(peer)
        peer.far.sendall(b"nonsense")
        reading.result(_PATIENCE / 2)
    assert [str(each) for each in peer.failures] == ["nonsense"]


@pytest.mark.parametrize("kind", [Interruption, KeyboardInterrupt, SystemExit, TimeoutError])
def test_an_interruption_that_loses_bytes_ends_the_connection(
    peer: Peer, patient: None, kind: type[BaseException]
) -> None:
    def interrupt(data: bytes) -> None:
        raise kind

    peer.on_received = interrupt

    def call() -> type[BaseException]:
        with pytest.raises(kind) as raised:
            peer.read_here(1)
        return raised.type

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(call)
        assert_reading(peer)
        peer.far.sendall(b"gone")
        assert reading.result(_PATIENCE / 2) is kind
    assert [type(each) for each in peer.failures] == [kind]
    peer.on_loop(lambda: None)
    assert peer.shared.descriptors == (-1, -1)


def test_the_loop_receives_what_an_interrupted_caller_has_read(peer: Peer, patient: None) -> None:
    """If the connection can continue, the loop receives the data once and in order."""
    peer.intact = True

    def interrupt(data: bytes) -> None:
        peer.on_received = lambda data: None
        raise Interruption

    peer.on_received = interrupt

    def call() -> None:
        with pytest.raises(Interruption):
            peer.read_here(1)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(call)
        assert_reading(peer)
        peer.far.sendall(b"read")
        reading.result(_PATIENCE / 2)
    assert peer.came.acquire(timeout=_PATIENCE)
    assert (peer.received, peer.readers) == (b"read", [peer.loops_thread])
    peer.far.sendall(b" and more")
    assert peer.came.acquire(timeout=_PATIENCE)
    assert peer.received == b"read and more"
    assert peer.failures == []


@pytest.mark.parametrize(
    ("error", "is_handlers"),
    [
        (OSError(errno.ETIMEDOUT, "timed out"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (ProtocolError(), False),
        (TimeoutError(), True),
        (Interruption(), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_errors_of_a_socket_and_of_a_handler_are_distinguished(
    error: BaseException, is_handlers: bool
) -> None:
    assert is_interruption(error) is is_handlers


# The right to read, if a caller is interrupted anywhere --------------------------------------


def test_the_right_to_read_is_never_lost(loop: asyncio.AbstractEventLoop) -> None:
    """The caller is interrupted at every line in turn."""
    at, where = 0, "nowhere yet"
    while where:
        at += 1
        peer = Peer(loop)
        reader = Reader()
        unsent = [b"answer"]

        def turn(peer: Peer = peer, reader: Reader = reader, unsent: list[bytes] = unsent) -> None:
            try:
                if peer.shared.begin_reading(reader):
                    peer.far.sendall(unsent.pop())
                    peer.shared.read_until(reader, lambda: bool(peer.received))
            finally:
                peer.shared.end_reading(reader)

        with ThreadPoolExecutor(1) as pool:
            where = pool.submit(interrupted, turn, at, shared_socket.__file__).result(_PATIENCE)
        if where:
            # As the loop does when a caller abandons its request.
            peer.on_loop(partial(peer.shared.end_reading, reader))
        if unsent:
            peer.far.sendall(unsent.pop())
        # Either every byte has been received, or the connection is lost.
        peer.wait()
        assert peer.failures or peer.received == b"answer"
        if not peer.failures:
            peer.on_loop(lambda: None)  # the reader may have been the loop
            assert peer.shared._holder == {}
            peer.far.sendall(b", and more")
            peer.wait()
            assert peer.received == b"answer, and more"
        peer.close()
    assert at > 20


# A call within a call of the same thread, as by a signal handler ------------------------------


def test_a_reader_at_rest_gives_way_to_the_loop(peer: Peer) -> None:
    reader = Reader()

    def within() -> bool:
        assert peer.shared.give_way()
        assert not peer.shared.begin_reading(Reader())  # the interrupted call is still in poll()
        peer.far.sendall(b"within")
        peer.wait()
        peer.on_loop(lambda: None)  # it has given the right to read back
        return False

    assert peer.shared.begin_reading(reader)
    peer.shared.read_until(reader, within)
    assert peer.received == b"within"
    assert set(peer.readers) == {peer.loops_thread}
    peer.shared.end_reading(reader)
    assert peer.shared.begin_reading(reader)  # the right was free
    peer.shared.end_reading(reader)


def test_a_reader_that_holds_bytes_does_not_give_way(peer: Peer, patient: None) -> None:
    gave_way: list[bool] = []
    peer.on_received = lambda data: gave_way.append(peer.shared.give_way())
    reader = Reader()
    assert peer.shared.begin_reading(reader)
    peer.far.sendall(b"x")
    peer.shared.read_until(reader, partial(peer.has, 1))
    peer.shared.end_reading(reader)
    assert (gave_way, peer.received) == ([False], b"x")


def test_another_threads_reader_is_left_alone(peer: Peer) -> None:
    reader = Reader()
    assert peer.shared.give_way()  # no reader has the right
    assert peer.shared.begin_reading(reader)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(peer.shared.give_way).result()
    assert not peer.shared.begin_reading(Reader())
    peer.shared.end_reading(reader)
