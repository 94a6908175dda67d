"""One socket, two who may read it: a real pair of sockets, and a real loop of either kind."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

import pytest

from django_nats.client import shared
from django_nats.client.parser import ProtocolError
from django_nats.client.shared import SharedSocket, is_interruption
from tests.support.interrupting import Interruption, interrupted

pytestmark = pytest.mark.skipif(not shared.AVAILABLE, reason="epoll is Linux's")

_PATIENCE = 20.0  # seconds until something that hangs has failed


class Reader:
    """A caller that may read."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.at_rest = False


class Peer:
    """A shared socket on a loop's thread, the far end, and what was received by whom."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.settimeout(_PATIENCE)
        self.loop = loop
        self.received = b""
        self.readers: list[int] = []
        self.failures: list[BaseException] = []
        self.came = threading.Semaphore(0)
        self.on_received: Callable[[bytes], None] = lambda data: None
        self.loops_thread = self.on_loop(threading.get_ident)
        self.shared: SharedSocket = self.on_loop(
            lambda: SharedSocket(self.near.fileno(), loop, self._take, self._fail)
        )

    def on_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(_PATIENCE)

    def _take(self, data: bytes) -> None:
        self.on_received(data)
        self.received += data
        self.readers.append(threading.get_ident())
        self.came.release()

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.loop.call_soon_threadsafe(self.shared.close)
        self.came.release()

    def has(self, count: int) -> bool:
        """Whether so many bytes have come altogether."""
        return len(self.received) >= count

    def wait(self) -> None:
        assert self.came.acquire(timeout=_PATIENCE)

    def read_here(self, until: int) -> None:
        """What a caller does; until so many bytes have come altogether."""
        reader = Reader()
        give_up = time.monotonic() + _PATIENCE
        while not self.shared.begin_reading(reader):  # the loop is reading what has come
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
    """Callers who wait until something comes."""
    monkeypatch.setattr(shared, "PATIENCE", _PATIENCE)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Who reads when ------------------------------------------------------------------------------


def test_what_comes_unasked_is_read_by_the_loop(peer: Peer) -> None:
    for piece in (b"PING\r\n", b"INFO\r\n"):
        peer.far.sendall(piece)
        peer.wait()
    assert peer.received == b"PING\r\nINFO\r\n"
    assert set(peer.readers) == {peer.loops_thread}


def test_what_a_caller_waits_for_is_read_by_it(peer: Peer, patient: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(peer.read_here, 4)
        assert_reading(peer)
        for piece in (b"1", b"2", b"34"):
            peer.far.sendall(piece)
            peer.wait()
        reading.result(_PATIENCE)
        caller = pool.submit(threading.get_ident).result()
    assert (peer.received, set(peer.readers)) == (b"1234", {caller})


def assert_reading(peer: Peer) -> None:
    """Wait until a caller has begun."""
    give_up = threading.Event()
    for _ in range(5000):
        if peer.shared._holder:
            return
        give_up.wait(0.001)
    raise AssertionError("nobody reads")


def test_the_loop_is_not_woken_while_a_caller_reads(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    woken = []
    readable = SharedSocket._readable

    def counted(self: SharedSocket) -> None:
        woken.append(threading.get_ident())
        readable(self)

    monkeypatch.setattr(SharedSocket, "_readable", counted)
    peer = Peer(loop)
    for turn in range(100):
        reader = Reader()
        assert peer.shared.begin_reading(reader)
        peer.far.sendall(b"x")
        peer.on_loop(lambda: None)  # the loop has been round, and has looked
        peer.shared.read_until(reader, partial(peer.has, turn + 1))
        peer.shared.end_reading(reader)
    assert (peer.received, woken) == (b"x" * 100, [])
    for _ in range(100):
        peer.came.acquire()
    peer.far.sendall(b"y")
    peer.wait()
    assert (peer.received[-1:], len(woken)) == (b"y", 1)
    peer.close()


def test_the_loop_looks_again_at_what_a_caller_has_left(peer: Peer) -> None:
    """It came while the loop looked away: nothing more has to come for it to be seen."""
    reader = Reader()
    assert peer.shared.begin_reading(reader)
    peer.far.sendall(b"left")
    peer.on_loop(lambda: None)
    assert peer.received == b""
    peer.shared.end_reading(reader)
    peer.wait()
    assert (peer.received, peer.readers) == (b"left", [peer.loops_thread])


def test_only_one_reads(peer: Peer) -> None:
    one, two = Reader(), Reader()
    assert peer.shared.begin_reading(one)
    assert not peer.shared.begin_reading(two)
    peer.shared.end_reading(two)  # is nothing to it
    assert not peer.shared.begin_reading(two)
    peer.shared.end_reading(one)
    peer.shared.end_reading(one)
    assert peer.shared.begin_reading(two)
    peer.shared.end_reading(two)


def test_a_caller_is_patient_for_a_moment_only(peer: Peer) -> None:
    """With nothing coming, and with something that is never enough."""
    peer.read_here(1)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.is_set():
            peer.far.sendall(b"x")

    with ThreadPoolExecutor(1) as pool:
        trickling = pool.submit(trickle)
        peer.wait()
        peer.shared._loop.call_soon_threadsafe(stop.set)
        peer.read_here(10**9)
        stop.set()
        trickling.result()


def test_a_caller_whose_answer_is_there_does_not_read(peer: Peer, patient: None) -> None:
    """A request that is refused before it is sent has no answer to come."""
    peer.read_here(0)
    assert peer.received == b""


@pytest.mark.parametrize("seed", range(3))
def test_no_byte_is_lost_or_taken_twice(peer: Peer, seed: int) -> None:
    """Callers and the loop in turn, while pieces of any size come at any time."""
    random = Random(seed)
    data = random.randbytes(2_000_000)
    end = threading.Event()

    def caller(pauses: Random) -> None:
        while not end.wait(pauses.random() / 2000):  # the loop's turn
            reader = Reader()
            if peer.shared.begin_reading(reader):
                enough = len(peer.received) + 5000
                peer.shared.read_until(reader, partial(peer.has, enough))
                peer.shared.end_reading(reader)

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(caller, Random(f"{seed}-{number}")) for number in range(3)]
        start = 0
        while start < len(data):
            size = random.choice([1, 10, 1000, 100_000])
            peer.far.sendall(data[start : start + size])
            start += size
        while not peer.has(len(data)):
            peer.wait()
        end.set()
        for each in callers:
            each.result(_PATIENCE)
    assert peer.received == data
    assert peer.loops_thread in peer.readers
    assert set(peer.readers) != {peer.loops_thread}
    assert peer.failures == []


# Ends and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_the_loop_hears_of_the_end(peer: Peer, reset: bool) -> None:
    if reset:  # bytes that were never read make the system reset the other side
        peer.on_loop(lambda: peer.near.send(b"unread"))
    peer.far.close()
    peer.wait()
    peer.on_loop(lambda: None)
    assert isinstance(peer.failures[0], ConnectionResetError)
    assert (peer.failures[0].errno == errno.ECONNRESET) is reset


@pytest.mark.parametrize("how", ["end", "close"])
def test_a_caller_hears_of_the_end(peer: Peer, patient: None, how: str) -> None:
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


def test_closing_twice_is_closing_once(peer: Peer) -> None:
    peer.on_loop(peer.shared.close)
    peer.on_loop(peer.shared.close)
    assert peer.shared.descriptors == (-1, -1)
    assert not peer.shared.begin_reading(Reader())


def test_what_is_no_protocol_ends_it(peer: Peer, patient: None) -> None:
    def refuse(data: bytes) -> None:
        raise ProtocolError(data.decode())

    peer.on_received = refuse
    peer.far.sendall(b"HTTP/1.1 400")
    peer.wait()
    peer.on_loop(lambda: None)
    assert [str(each) for each in peer.failures] == ["HTTP/1.1 400"]
    assert peer.shared.descriptors == (-1, -1)


def test_a_caller_who_reads_nonsense_is_not_told_by_an_error(peer: Peer, patient: None) -> None:
    """Its waiter is, as everyone is who waits on the connection."""

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
def test_interrupted_with_bytes_in_hand_the_connection_is_lost(
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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ETIMEDOUT, "timed out"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (ProtocolError(), False),
        (TimeoutError(), True),
        (Interruption(), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_a_sockets_own_error_is_told_from_a_handlers(error: BaseException, told: bool) -> None:
    assert is_interruption(error) is told


# The right to read, wherever a caller is interrupted -----------------------------------------


def test_the_right_to_read_is_never_lost(loop: asyncio.AbstractEventLoop) -> None:
    """Interrupted at every line of a caller's turn, one after the other."""
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
            where = pool.submit(interrupted, turn, at, shared.__file__).result(_PATIENCE)
        if where:
            peer.on_loop(partial(peer.shared.end_reading, reader))  # as who is told of it does
        if unsent:
            peer.far.sendall(unsent.pop())
        # Every byte has been received, or the connection is lost: never neither.
        peer.wait()
        assert peer.failures or peer.received == b"answer"
        if not peer.failures:
            assert peer.shared._holder == {} or peer.shared._holder["to read"].thread == 0
            peer.far.sendall(b", and more")
            peer.wait()
            assert peer.received == b"answer, and more"
        peer.close()
    assert at > 20


# A call within a call of the same thread, as a signal's handler makes one --------------------


def test_a_reader_at_rest_gives_way_to_the_loop(peer: Peer) -> None:
    reader = Reader()

    def within() -> bool:
        assert peer.shared.give_way()
        assert not peer.shared.begin_reading(Reader())  # the one within is still in poll()
        peer.far.sendall(b"within")
        peer.wait()
        return False

    assert peer.shared.begin_reading(reader)
    peer.shared.read_until(reader, within)
    assert peer.received == b"within"
    assert set(peer.readers) == {peer.loops_thread}
    peer.shared.end_reading(reader)
    assert peer.shared.begin_reading(reader)  # nobody's, and not taken from anyone else
    peer.shared.end_reading(reader)


def test_a_reader_with_bytes_in_hand_does_not_give_way(peer: Peer, patient: None) -> None:
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
    assert peer.shared.give_way()  # there is none
    assert peer.shared.begin_reading(reader)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(peer.shared.give_way).result()
    assert not peer.shared.begin_reading(Reader())
    peer.shared.end_reading(reader)


# Descriptors ---------------------------------------------------------------------------------


def test_a_thousand_leave_no_descriptor(loop: asyncio.AbstractEventLoop, patient: None) -> None:
    """Closed idle, and closed while a caller waits."""
    Peer(loop).close()
    gc.collect()
    before = descriptors()
    with ThreadPoolExecutor(1) as pool:
        for turn in range(1000):
            peer = Peer(loop)
            if turn % 2:
                reading = pool.submit(peer.read_here, 1)
                assert_reading(peer)
                peer.close()
                reading.result(_PATIENCE)
            else:
                peer.close()
    peer.on_loop(lambda: None)
    assert descriptors() == before


def test_descriptors_are_those_a_child_lets_go_of(peer: Peer) -> None:
    own, watch = peer.shared.descriptors
    assert os.readlink(f"/proc/self/fd/{own}") == os.readlink(f"/proc/self/fd/{peer.near.fileno()}")
    assert "eventpoll" in os.readlink(f"/proc/self/fd/{watch}")
    assert not os.get_inheritable(own)
    assert not os.get_inheritable(watch)


# Writing -------------------------------------------------------------------------------------


def test_sending_takes_what_there_is_room_for(peer: Peer) -> None:
    peer.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    taken = peer.shared.send(b"x" * 1_000_000)
    assert 0 < taken < 1_000_000
    while more := peer.shared.send(b"x" * 1_000_000):
        taken += more
    received = 0
    while received < taken:
        received += len(peer.far.recv(65536))
    assert received == taken
