"""The socket of a connection, which the loop reads, or a caller that waits for its own answer.

A blocking call through another thread's event loop wakes two threads that a plain socket would
not wake, and on an idle machine a wake-up takes longer than everything else in a cache's get. So
a caller that is alone on the connection writes and reads for itself, and the loop stays asleep.

Nobody waits for the right to read: it is on record who has it, or it is free. The loop watches
the socket through an epoll of its own, which any thread may tell to look away and to look again.
That is Linux's; where it is missing, and with TLS, whose state is the transport's, the loop does
it all.

A signal's handler may raise between any two steps of the main thread. The record is made in one
step, so that what was interrupted while it had the right can give it back, or have it given back.
"""

from __future__ import annotations

import asyncio
import select
import socket
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from .parser import ProtocolError

PIECE = 64 * 1024
"""Bytes read at once, and the most that a caller writes for itself."""
PATIENCE = 0.005
"""Seconds that a caller reads for itself; the loop, which knows of timeouts, waits for the rest."""

AVAILABLE = hasattr(select, "epoll")

_RIGHT = "to read"
_KERNEL_ROOM = 256 * 1024


def keep_waiting_bytes_here(sock: socket.socket) -> None:
    """Have what is still to be sent wait in the transport: in the system's buffers, which grow to
    megabytes, it would look like what the server is taking its time to answer."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, _KERNEL_ROOM)


class ClosedByServer(ConnectionResetError):
    """Nothing more will come."""


def is_interruption(error: BaseException) -> bool:
    """Whether a signal's handler raised it: what a socket raises has a number."""
    if isinstance(error, ClosedByServer):
        return False
    if isinstance(error, OSError):
        return error.errno is None
    return not isinstance(error, ProtocolError)


class Reader(Protocol):
    """Who may have the right to read."""

    thread: int
    at_rest: bool
    """Whether the right could be taken away, as no bytes are in hand."""


class _Loop:
    """Who reads where no caller does, and who has closed."""

    thread = 0
    at_rest = False


_NOBODY = _Loop()


class SharedSocket:
    """A duplicate of a transport's socket, with two who may read it in turn."""

    def __init__(
        self,
        descriptor: int,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[bytes], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._socket = socket.socket(fileno=socket.dup(descriptor))
        self._socket.setblocking(False)
        self._loop = loop
        self._received = received
        self._failed = failed
        self._reader = _Loop()
        self._holder: dict[str, Reader] = {}
        self._inside = False
        self._closed = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._watch = select.epoll()
        self._watch.register(self._socket, select.EPOLLIN)
        loop.add_reader(self._watch.fileno(), self._readable)

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a forked child lets go of; negative once closed."""
        watch = self._watch
        return self._socket.fileno(), -1 if watch.closed else watch.fileno()

    def send(self, data: bytes) -> int:
        """Write without waiting, from any thread; the number of bytes that were taken."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def begin_reading(self, reader: Reader) -> bool:
        """Give the right to read, if it is free, to a reader; it is to end_reading(), always."""
        if self._closed or self._inside:
            return False
        if self._holder.setdefault(_RIGHT, reader) is not reader:
            return False
        self._watch.modify(self._socket, 0)
        reader.at_rest = True
        return True

    def read_until(self, reader: Reader, done: Callable[[], bool]) -> None:
        """Read, having begun, until done or out of patience."""
        give_up = monotonic() + PATIENCE
        try:
            self._inside = True  # of poll(), even when the right to read has been given away
            while not done() and self._poll.poll(PATIENCE * 1000):
                reader.at_rest = False
                if self._holder.get(_RIGHT) is not reader or not self._read():
                    break
                reader.at_rest = True
                if monotonic() > give_up:
                    break
        finally:
            self._inside = False

    def end_reading(self, reader: Reader) -> None:
        """Leave reading to the loop again; nothing for one who does not have the right."""
        reader.at_rest = False
        if self._holder.get(_RIGHT) is reader:
            if not self._closed:
                self._watch.modify(self._socket, select.EPOLLIN)
            del self._holder[_RIGHT]
        if self._closed:
            self._dispose()

    def give_way(self) -> bool:
        """For a call within a call of this thread, as a signal's handler makes one: leave reading
        to the loop. False if that one has bytes in hand, and must go on first."""
        reader = self._holder.get(_RIGHT)
        if reader is None or reader.thread != get_ident():
            return True
        if not reader.at_rest:
            return False
        self.end_reading(reader)
        return True

    def _readable(self) -> None:
        if self._holder.setdefault(_RIGHT, self._reader) is self._reader:
            try:
                self._read()
            finally:
                del self._holder[_RIGHT]

    def _read(self) -> bool:
        """Take what has come in; False when nothing will come any more."""
        try:
            data = self._socket.recv(PIECE)
            if data:
                self._received(data)
                return True
        except BlockingIOError:
            return True
        except BaseException as error:
            # Bytes that were read and not understood, or that a signal's exception made a caller
            # drop, leave nothing that could be read after them.
            self._failed(error)
            if is_interruption(error):
                raise
            return False
        self._failed(ClosedByServer("the server has closed the connection"))
        return False

    def close(self) -> None:
        """Give up the duplicate, on the loop's thread; one who reads is woken, and does it."""
        if self._closed:
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.remove_reader(self._watch.fileno())
        self._closed = True  # from now on, one who reads may close it at any time
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._dispose()

    def _dispose(self) -> None:
        if self._holder.setdefault(_RIGHT, _NOBODY) is _NOBODY:
            # The right to read is not given back: there is nothing left to be read.
            self._watch.close()
            self._socket.close()
