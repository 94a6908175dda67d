"""What the server sends, cut into messages: the few lines of the NATS protocol a client reads.

https://docs.nats.io/reference/reference-protocols/nats-protocol. nats-py's own parser costs more
than everything else in a reply: a regular expression for each kind of line, tried on a buffer
that is copied along, and a coroutine for each message.
"""

from __future__ import annotations

from collections.abc import Callable

from .wire import Reply, new_reply

MAX_LINE = 1024 * 1024
"""Bytes of a control line without an end; INFO, which lists a cluster's servers, is the longest."""

_HMSG, _MSG = ord("H"), ord("M")
_LINES = (b"PING", b"PONG", b"INFO ", b"+OK", b"-ERR")


class ProtocolError(Exception):
    """What came in is not the NATS protocol."""


class Parser:
    """Takes bytes as they come and hands on each message, and each line that is none."""

    def __init__(
        self, message: Callable[[bytes, Reply], None], line: Callable[[bytes], None]
    ) -> None:
        self._message = message
        self._line = line
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError; nothing that follows can be understood then."""
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            # A large message comes in many pieces: joined once, when it is whole.
            if self._held_size < self._needed:
                return None
            data = b"".join(self._held)
            self._held = []
        start, size = 0, len(data)
        try:
            while start < size:
                end = data.find(b"\r\n", start)
                if end < 0:
                    if size - start > MAX_LINE:
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
                    self._line(data[start:end])
                    start = body
                    continue
                else:
                    raise ValueError
                stop = body + int(total)
                if not body <= payload <= stop:
                    raise ValueError
                if stop + 2 > size:
                    return self._hold(data, start, stop + 2 - start)
                start = stop + 2
                self._message(
                    sid, new_reply((data[body:payload], data[payload:stop], reply_to, subject))
                )
        except ValueError as error:
            verb = data[start : start + 8]  # not more: it may be part of a value
            raise ProtocolError(f"The server sent what is no NATS protocol: {verb!r}") from error

    def _hold(self, data: bytes, start: int, needed: int) -> None:
        self._held = [data[start:]]
        self._held_size = len(self._held[0])
        self._needed = needed
