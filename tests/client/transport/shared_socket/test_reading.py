"""A socket with two readers, on real sockets and on loops of asyncio and uvloop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import pytest

from django_nats.client import process
from django_nats.client.transport import shared_socket
from django_nats.client.transport.shared_socket import SharedSocket
from django_nats.devserver.files import eventually
from tests.client.transport.shared_socket.conftest import (
    _PATIENCE,
    Peer,
    Reader,
    assert_reading,
    descriptors,
)

pytestmark = pytest.mark.skipif(not shared_socket.AVAILABLE, reason="epoll is Linux's")


# Which reader reads --------------------------------------------------------------------------


def test_unrequested_bytes_are_read_by_the_loop(peer: Peer) -> None:
    for piece in (b"PING\r\n", b"INFO\r\n"):
        peer.far.sendall(piece)
        peer.wait()
    assert peer.received == b"PING\r\nINFO\r\n"
    assert set(peer.readers) == {peer.loops_thread}


def test_a_caller_reads_what_it_waits_for(peer: Peer, patient: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(peer.read_here, 4)
        assert_reading(peer)
        for piece in (b"1", b"2", b"34"):
            peer.far.sendall(piece)
            peer.wait()
        reading.result(_PATIENCE)
        caller = pool.submit(threading.get_ident).result()
    assert (peer.received, set(peer.readers)) == (b"1234", {caller})


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
        peer.on_loop(lambda: None)  # the loop has polled once
        peer.shared.read_until(reader, partial(peer.has, turn + 1))
        peer.shared.end_reading(reader)
    assert (peer.received, woken) == (b"x" * 100, [])
    for _ in range(100):
        peer.came.acquire()
    peer.far.sendall(b"y")
    peer.wait()
    assert (peer.received[-1:], len(woken)) == (b"y", 1)
    peer.close()


def test_the_loop_reads_what_a_caller_has_left(peer: Peer) -> None:
    """They arrived while the loop did not watch. It reads them although no more arrive."""
    reader = Reader()
    assert peer.shared.begin_reading(reader)
    peer.far.sendall(b"left")
    peer.on_loop(lambda: None)
    assert peer.received == b""
    peer.shared.end_reading(reader)
    peer.wait()
    assert (peer.received, peer.readers) == (b"left", [peer.loops_thread])


def test_only_one_reader_has_the_right(peer: Peer) -> None:
    one, two = Reader(), Reader()
    assert peer.shared.begin_reading(one)
    assert not peer.shared.begin_reading(two)
    peer.shared.end_reading(two)  # has no effect
    assert not peer.shared.begin_reading(two)
    peer.shared.end_reading(one)
    peer.shared.end_reading(one)
    assert peer.shared.begin_reading(two)
    peer.shared.end_reading(two)


def test_a_caller_reads_for_a_limited_time(peer: Peer) -> None:
    """The limit holds if nothing arrives, and if bytes arrive but never enough."""
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
    """A request that was refused before it was sent will have no answer."""
    peer.read_here(0)
    assert peer.received == b""


@pytest.mark.parametrize("seed", range(3))
def test_no_byte_is_lost_or_taken_twice(peer: Peer, seed: int) -> None:
    """Callers and the loop read in turn, while pieces of any size arrive at any time."""
    random = Random(seed)
    sent = bytearray()
    end = threading.Event()

    def caller(pauses: Random) -> None:
        while not end.wait(pauses.random() / 2000):  # the loop reads next
            reader = Reader()
            if peer.shared.begin_reading(reader):
                enough = len(peer.received) + 5000
                peer.shared.read_until(reader, partial(peer.has, enough))
                peer.shared.end_reading(reader)

    def send(size: int) -> bool:
        piece = random.randbytes(size)
        sent.extend(piece)
        peer.far.sendall(piece)
        return True

    def a_caller_has_read() -> bool:
        return bool({*peer.readers} - {peer.loops_thread})

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(caller, Random(f"{seed}-{number}")) for number in range(3)]
        try:
            while len(sent) < 2_000_000:
                send(random.choice([1, 10, 1000, 100_000]))
            # The system decides which reader reads, and when.
            give_up = time.monotonic() + _PATIENCE
            assert eventually(lambda: a_caller_has_read() or not send(10), give_up)
        finally:
            end.set()
        for each in callers:
            each.result(_PATIENCE)
    send(10)  # the loop's
    while not peer.has(len(sent)):
        peer.wait()
    assert peer.received == sent
    assert peer.loops_thread in peer.readers
    assert peer.failures == []


# Descriptors ---------------------------------------------------------------------------------


def test_a_thousand_sockets_leave_no_descriptor(
    loop: asyncio.AbstractEventLoop, patient: None
) -> None:
    """They are closed while idle, and while a caller waits."""
    process.close()  # connections of earlier tests are not reopened meanwhile
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
    # Other descriptors of the process are not compared, since they may change at any time.
    assert eventually(lambda: descriptors() <= before, time.monotonic() + _PATIENCE)


def test_descriptors_are_those_that_a_child_closes(peer: Peer) -> None:
    own, watch = peer.shared.descriptors
    assert os.readlink(f"/proc/self/fd/{own}") == os.readlink(f"/proc/self/fd/{peer.near.fileno()}")
    assert "eventpoll" in os.readlink(f"/proc/self/fd/{watch}")
    assert not os.get_inheritable(own)
    assert not os.get_inheritable(watch)


# Writing -------------------------------------------------------------------------------------


def test_send_accepts_as_much_as_there_is_room_for(peer: Peer) -> None:
    peer.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    taken: list[int] = []
    peer.shared.send(b"x" * 1_000_000, taken)
    assert 0 < sum(taken) < 1_000_000
    calls = 0
    while calls < len(taken):
        calls = len(taken)
        peer.shared.send(b"x" * 1_000_000, taken)
    received = 0
    while received < sum(taken):
        received += len(peer.far.recv(65536))
    assert received == sum(taken)
