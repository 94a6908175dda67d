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
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from .parser import ProtocolError

PIECE = 64 * 1024
"""Bytes read at once, and the most that a caller writes for itself."""
PATIENCE = 0.005
"""Seconds that a caller reads for itself; the loop, which knows of timeouts, waits for the rest."""

AVAILABLE = hasattr(select, "epoll")

_RIGHT = "to read"
_NOBODY = object()


def is_interruption(error: BaseException) -> bool:
    """Whether a signal's handler raised it: what a socket raises has a number."""
    if isinstance(error, OSError):
        return error.errno is None
    return not isinstance(error, ProtocolError)


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
        self._holder: dict[str, object] = {}
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

    def begin_reading(self, reader: object) -> bool:
        """Give the right to read, if it is free, to a reader; it is to end_reading(), always."""
        if self._closed or self._holder.setdefault(_RIGHT, reader) is not reader:
            return False
        self._watch.modify(self._socket, 0)
        return True

    def read_until(self, done: Callable[[], bool]) -> None:
        """Read, having begun, until done or out of patience."""
        give_up = monotonic() + PATIENCE
        while not done() and self._poll.poll(PATIENCE * 1000) and self._read():
            if monotonic() > give_up:
                break

    def end_reading(self, reader: object) -> None:
        """Leave reading to the loop again; nothing for one who does not have the right."""
        if self._holder.get(_RIGHT) is reader:
            if not self._closed:
                self._watch.modify(self._socket, select.EPOLLIN)
            del self._holder[_RIGHT]
        if self._closed:
            self._dispose()

    def _readable(self) -> None:
        if self._holder.setdefault(_RIGHT, self) is self:
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
        self._failed(ConnectionResetError("the server has closed the connection"))
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
