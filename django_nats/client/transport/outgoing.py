"""The bytes that leave on a connection: their order, and how many have left.

The loop writes to nats-py's transport, which buffers what the system does not accept yet. A
caller that is alone on the connection writes to the socket itself, while the transport's buffer
is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from ...realtime import monotonic
from .pending import Outstanding
from .shared_socket import PIECE_BYTES, SharedSocket, is_interruption

_LOOK_S = 0.002
"""How often the transport is asked whether its buffer is empty."""
_MIN_FLOW_BYTES = 256 * 1024
"""A connection on which fewer bytes leave within a request's timeout counts as stuck."""


class WritableConnection(Protocol):
    """What is needed of the connection."""

    outstanding: Outstanding
    lost: asyncio.Future[Exception]

    def lose(self, error: Exception) -> None:
        """Close the connection for an error, on the loop's thread."""

    def fail_from_anywhere(self, error: BaseException) -> None:
        """Close the connection for an error, from any thread."""

    def note_flow(self) -> None:
        """Take note that many bytes have left."""


class Outgoing:
    """The bytes of one connection that have been written, and those of them that are still here.

    All methods but attach() are called under the lock of ``outstanding``, or on the loop's
    thread.
    """

    _transport: Any
    """nats-py's transport. Set by attach()."""

    def __init__(self, link: WritableConnection) -> None:
        """Make it for a connection that is not open yet."""
        self._link = link
        self._lock = link.outstanding.lock
        self._loop = asyncio.get_running_loop()
        self.flowed_at = monotonic()
        """When many bytes last left, on the monotonic clock."""
        self._reserved = self._flowed = 0
        self._unsent = b""
        """The rest of what a caller has written, which the loop is to write."""
        self._sending: tuple[bytes, list[int]] | None = None
        """What a caller is writing, and how many bytes of it the socket has accepted."""
        self._transport_busy = False
        """Whether the transport may have bytes in its buffer."""

    def attach(self, transport: Any) -> None:
        """Write to nats-py's transport from now on."""
        self._transport = transport

    def reserve(self, size: int) -> int:
        """Count bytes that are about to be written. Return their end's position in all bytes."""
        self._reserved += size
        return self._reserved

    def sent_bytes(self) -> int:
        """Return how many of the bytes counted by reserve() have left."""
        return self._reserved - self.buffered()

    def buffered(self) -> int:
        """Return how many bytes have been written and have not left, and note if many have."""
        buffered = len(self._unsent)
        if not self._transport.closed:  # otherwise asyncio's TLS would raise
            buffered += self._transport._io_writer.transport.get_write_buffer_size()
        sent = self._reserved - buffered
        if sent - self._flowed >= _MIN_FLOW_BYTES:
            self._flowed, self.flowed_at = sent, monotonic()
            self._link.note_flow()
        return buffered

    def is_clear(self) -> bool:
        """Return True if a caller may write: it would not overtake or split other bytes."""
        if self._sending is not None:
            self._settle()
        return not (self._transport_busy or self._unsent)

    def send(self, data: bytes, shared: SharedSocket) -> None:
        """Write bytes that reserve() has counted, on the caller's thread and under the lock."""
        accepted: list[int] = []
        self._sending = data, accepted
        try:
            # Large writes are left to the loop, which knows how much of them has left.
            if len(data) <= PIECE_BYTES:
                shared.send(data, accepted)
        except OSError as error:
            if is_interruption(error):
                raise
            self._link.fail_from_anywhere(error)
        if accepted != [len(data)]:
            self._unsent = data[sum(accepted) :]
            with contextlib.suppress(RuntimeError):  # the loop has ended and failed all requests
                self._loop.call_soon_threadsafe(self.write, b"")
        self._sending = None

    def _settle(self) -> None:
        """Take over what an interrupted caller was writing: the rest of a frame must follow."""
        if self._sending is None:
            return
        data, accepted = self._sending
        if accepted:
            self._unsent = data[sum(accepted) :]
        elif not self._unsent:
            self._reserved -= len(data)  # no byte has left, and the caller no longer waits
        self._sending = None

    def write(self, data: bytes) -> None:
        """Write on the loop's thread, after what a caller has left unsent."""
        with self._lock:
            self._settle()
            data, self._unsent = self._unsent + data, b""
            try:
                self._transport.write(data)
            except RuntimeError:  # uvloop's transports raise it once they are closed
                self._link.lose(ConnectionResetError("the server has closed the connection"))
            except Exception as error:
                self._link.lose(error)
            if not self._transport_busy:
                self._transport_busy = True
                self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Note when the transport's buffer is empty.

        Only the loop's thread can tell. Seen from another thread, the buffer may be empty in the
        middle of a write.
        """
        if self.buffered() and not self._link.lost.done():
            self._loop.call_later(_LOOK_S, self._look)
        else:
            self._transport_busy = False
