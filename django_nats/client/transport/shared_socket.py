"""The socket of a connection, read by the loop or by a caller that waits for its own answer.

A blocking call through another thread's event loop wakes two threads that a plain socket would
not wake. On an idle machine, one wake-up takes longer than everything else in a cache's get. So a
caller that is alone on the connection writes and reads for itself, and the loop stays asleep.

At any time, at most one reader has the right to read: the loop or a caller. No thread waits for
the right. A reader takes it if it is free, and otherwise leaves the reading to the other. The
loop watches the socket through an epoll of its own, and any thread can tell this epoll to stop
and to resume. Where there is no epoll, which exists on Linux only, the loop does all the reading.
So it does with TLS, whose state is in the transport.

A signal's handler may raise between any two steps of the main thread. The right is taken in one
step, with a record of the reader that has it, so that it can be returned after an interruption.
"""

from __future__ import annotations

import asyncio
import select
import socket
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ...realtime import monotonic
from ..protocol.parser import ProtocolError
from .driver_errors import Interrupted

PIECE_BYTES = 64 * 1024
"""How much is read at once, and the most that a caller writes for itself."""
READ_PATIENCE_S = 0.005
"""How long a caller reads for itself. Then the loop reads, which handles timeouts."""

AVAILABLE = hasattr(select, "epoll")
"""Whether this system lets callers read."""

_RIGHT = "to read"
"""The only key of the record of who has the right."""
_UNSENT_BYTES = 256 * 1024
"""How many unsent bytes may wait in the system's buffers."""


def limit_system_buffer(sock: socket.socket) -> None:
    """Limit the unsent bytes in the system's buffers, so that the rest waits in the transport.

    The system's buffers grow to megabytes. Requests that wait there would look as if the server
    had them, and did not answer.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, _UNSENT_BYTES)


class ClosedByServer(ConnectionResetError):
    """The server has closed the connection."""


def is_interruption(error: BaseException) -> bool:
    """Return True if a signal's handler raised an error. A socket's errors have a number."""
    if isinstance(error, ClosedByServer):
        return False
    if isinstance(error, OSError):
        return error.errno is None
    return not isinstance(error, ProtocolError)


class Reader(Protocol):
    """The loop, or a caller that may have the right to read."""

    thread: int
    """Identity of the caller's thread."""
    at_rest: bool
    """Whether the right can be taken from the caller, as it holds no bytes it has read."""


class _LoopReader:
    """The loop as a reader, whose right no caller takes away."""

    thread = 0
    at_rest = False


_CLOSED = _LoopReader()
"""The reader that has the right once the socket is closed."""


class SharedSocket:
    """A duplicate of a transport's socket, which the loop and callers read in turn."""

    def __init__(
        self,
        descriptor: int,
        loop: asyncio.AbstractEventLoop,
        received: Callable[[list[bytes]], None],
        failed: Callable[[BaseException], None],
        can_continue: Callable[[list[bytes]], bool],
    ) -> None:
        """Duplicate a descriptor, and read it on the loop until a caller does.

        ``received`` gets a list with the bytes that were read. If a signal's handler raises in
        it, ``can_continue`` gets the same list, and returns True if ``received`` can be called
        with it once more to continue. ``failed`` gets the error after which nothing more is read.
        """
        self._socket = socket.socket(fileno=socket.dup(descriptor))
        self._socket.setblocking(False)
        self._loop = loop
        self._received = received
        self._failed = failed
        self._can_continue = can_continue
        self._piece: list[bytes] = []
        """Bytes that have been read, in a list, until ``received`` has returned."""
        self._failure: BaseException | None = None
        """Why nothing more can be read."""
        self._failure_reported = False
        self._loop_reader = _LoopReader()
        self._holder: dict[str, Reader] = {}
        """The reader that has the right, under the key _RIGHT. Empty while the right is free."""
        self._polling = False
        """Whether a caller is in read_until(), even if its right has been taken away."""
        self._closed = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._watch = select.epoll()
        self._watch.register(self._socket, select.EPOLLIN)
        loop.add_reader(self._watch.fileno(), self._readable)

    @property
    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors, which a forked child closes. They are negative once closed."""
        watch = self._watch
        return self._socket.fileno(), -1 if watch.closed else watch.fileno()

    def send(self, data: bytes, accepted: list[int]) -> None:
        """Write without waiting, and add the number of bytes written to the list ``accepted``.

        Both are one step: when a signal's handler interrupts the caller, the list is right. Any
        thread may call this.
        """
        try:
            accepted.extend(map(self._socket.send, (data,)))
        except BlockingIOError:
            pass

    def begin_reading(self, reader: Reader) -> bool:
        """Give a reader the right to read. Return False if the right is not free.

        The reader must call end_reading() in any case.
        """
        if self._closed or self._polling:
            return False
        if self._holder.setdefault(_RIGHT, reader) is not reader:
            return False
        self._watch.modify(self._socket, 0)
        reader.at_rest = True
        return True

    def read_until(self, reader: Reader, done: Callable[[], bool]) -> None:
        """Read until ``done`` returns True, or for READ_PATIENCE_S. begin_reading() comes first."""
        give_up = monotonic() + READ_PATIENCE_S
        try:
            self._polling = True
            while not done() and self._poll.poll(READ_PATIENCE_S * 1000):
                reader.at_rest = False
                if self._holder.get(_RIGHT) is not reader or not self._read():
                    break
                reader.at_rest = True
                if monotonic() > give_up:
                    break
        finally:
            self._polling = False

    def end_reading(self, reader: Reader) -> None:
        """Return the right to the loop. Do nothing if the reader does not have it."""
        reader.at_rest = False
        if self._holder.get(_RIGHT) is reader:
            if not self._closed:
                self._watch.modify(self._socket, select.EPOLLIN)
            del self._holder[_RIGHT]
            if self._piece and self._failure is None:
                with suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._readable)
        if self._closed:
            self._dispose()

    def give_way(self) -> bool:
        """Return the right to the loop if an interrupted call of this thread has it.

        This is for a call by a signal's handler. Return False if the interrupted call holds bytes
        that it has read, so that it must continue first.
        """
        reader = self._holder.get(_RIGHT)
        if reader is None or reader.thread != get_ident():
            return True
        if not reader.at_rest:
            return False
        self.end_reading(reader)
        return True

    def _readable(self) -> None:
        if self._holder.setdefault(_RIGHT, self._loop_reader) is self._loop_reader:
            try:
                self._read()
            finally:
                del self._holder[_RIGHT]

    def _read(self) -> bool:
        """Read what has arrived. Return False if nothing more will arrive."""
        piece = self._piece
        try:
            if self._failure is not None or (piece and not self._can_continue(piece)):
                return self._fail(self._failure or Interrupted())
            if not piece:  # otherwise an interrupted caller has left it
                # In one step: when a signal's handler interrupts the reader, no bytes are lost.
                piece.extend(map(self._socket.recv, (PIECE_BYTES,)))
            if piece[0]:
                self._received(piece)
                self._piece = []
                piece.clear()  # freed at once: kept until the next read, they cost much more
                return True
        except BlockingIOError:
            return True
        except BaseException as error:
            if not is_interruption(error):
                return self._fail(error)
            if piece and not self._can_continue(piece):
                # Some of these bytes are lost, so that those behind them cannot be parsed.
                self._fail(error)
            raise
        return self._fail(ClosedByServer("the server has closed the connection"))

    def _fail(self, error: BaseException) -> bool:
        self._failure = error
        if not self._failure_reported:
            self._failed(error)
            self._failure_reported = True
        return False

    def close(self) -> None:
        """Close the duplicate, on the loop's thread.

        If a caller is reading, it is woken, and closes the duplicate itself.
        """
        if self._closed:
            return
        with suppress(RuntimeError):  # the loop has ended
            self._loop.remove_reader(self._watch.fileno())
        self._closed = True  # from now on, a caller that reads may close it at any time
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._dispose()

    def _dispose(self) -> None:
        if self._holder.setdefault(_RIGHT, _CLOSED) is _CLOSED:
            # The right is never returned, as there is nothing left to read.
            self._watch.close()
            self._socket.close()
