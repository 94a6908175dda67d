"""A parser of the NATS protocol, as far as a client reads it.

See https://docs.nats.io/reference/reference-protocols/nats-protocol. nats-py has a parser, but it
costs more than everything else that is done for a reply. It tries a regular expression for each
kind of line, copies its buffer, and awaits a coroutine for each message.
"""

from __future__ import annotations

from collections.abc import Callable

from .runs import ReadRun
from .wire import Reply, new_reply

MAX_LINE_BYTES = 1024 * 1024
"""The longest control line is INFO, which lists the servers of a cluster."""

MAX_ANNOUNCED_BYTES = 2**31 - 1
"""The server counts the size of a message in 32 bits."""

_HMSG, _MSG = ord("H"), ord("M")
_LINES = (b"PING", b"PONG", b"INFO ", b"+OK", b"-ERR")


class ProtocolError(Exception):
    """The bytes received are not the NATS protocol."""


class Parser:
    """Takes bytes as they arrive, and calls a function for each message and each other line."""

    def __init__(
        self,
        message: Callable[[bytes, Reply], ReadRun | None],
        line: Callable[[bytes], None],
        too_large: Callable[[bytes, bytes, int], None],
        max_bytes: int,
    ) -> None:
        """Make a parser that calls these functions.

        ``message`` gets the subscription id and the reply, ``line`` a control line without its
        end. A message larger than ``max_bytes`` is skipped, and its bytes are not kept:
        ``too_large`` gets its subscription id, its subject and its size. ``message`` may return a
        function that reads what follows in the same bytes, as far as it can.
        """
        self.max_bytes = max_bytes
        """Size that a message may have, headers included."""
        self._message = message
        self._line = line
        self._too_large = too_large
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0
        self._skipped = 0
        self.interrupted: tuple[bytes, bytes] | None = None
        """Set when the last feed() raised, but the next can continue after it, even with b"".

        It is the subscription id and the subject of the message that was being handled.
        """

    @property
    def held(self) -> int:
        """Return how many bytes are kept until the rest of their message arrives."""
        return self._held_size if self._held else 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. Let through what the functions raise.

        Raise ProtocolError if the bytes are not the NATS protocol. Nothing that follows can be
        parsed then.
        """
        self.interrupted = None
        if self._skipped:
            size = len(data)
            data = data[self._skipped :]
            self._skipped = max(0, self._skipped - size)
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            # A large message arrives in many pieces. They are joined once, when it is complete.
            if self._held_size < self._needed:
                return None
            data = b"".join(self._held)
            self._held = []
        start, size, handed_on = 0, len(data), -1
        sid = subject = b""
        try:
            while start < size:
                end = data.find(b"\r\n", start)
                if end < 0:
                    if size - start > MAX_LINE_BYTES:
                        raise ValueError
                    return self._hold(data, start, 0)
                kind, body = data[start], end + 2
                if kind == _HMSG:
                    fields = data[start + 5 : end].split()
                    if len(fields) == 4:
                        (subject, sid, header_size, total), reply_to = fields, b""
                    else:
                        subject, sid, reply_to, header_size, total = fields
                    payload = body + int(header_size)
                elif kind == _MSG:
                    fields = data[start + 4 : end].split()
                    if len(fields) == 3:
                        (subject, sid, total), reply_to = fields, b""
                    else:
                        subject, sid, reply_to, total = fields
                    payload = body
                elif data.startswith(_LINES, start):
                    handed_on = start
                    self._line(data[start:end])
                    start = body
                    continue
                else:
                    raise ValueError
                stop = body + int(total)
                if not body <= payload <= stop:
                    raise ValueError
                if stop + 2 > size:
                    # Checked only here: a message that is all there takes no further memory.
                    if stop - body > self.max_bytes:
                        handed_on = start  # once skipped, it must not be parsed again
                        return self._skip(sid, subject, stop - body, stop + 2 - size)
                    return self._hold(data, start, stop + 2 - start)
                start = stop + 2
                read_run = self._message(
                    sid, new_reply((data[body:payload], data[payload:stop], reply_to, subject))
                )
                if read_run is not None and start < size:
                    start = read_run(data, start)
        except ValueError as error:
            verb = data[start : start + 8]  # not more, since it may be part of a value
            raise ProtocolError(
                f"The server sent bytes that are not the NATS protocol: {verb!r}"
            ) from error
        except BaseException:
            if start != handed_on:  # a line must not be handled twice
                self._hold(data, start, 0)
                self.interrupted = sid, subject
            raise

    def _skip(self, sid: bytes, subject: bytes, announced: int, left: int) -> None:
        if announced > MAX_ANNOUNCED_BYTES:
            raise ValueError
        self._skipped = left
        self._too_large(sid, subject, announced)

    def _hold(self, data: bytes, start: int, needed: int) -> None:
        self._held = [data[start:]]
        self._held_size = len(self._held[0])
        self._needed = needed
