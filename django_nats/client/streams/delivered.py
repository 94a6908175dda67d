"""The messages that a consumer delivers without payloads, read many at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Run(NamedTuple):
    """Messages that were delivered one after the other: a column for each of their parts."""

    subjects: list[bytes]
    """In ASCII, without spaces and line breaks."""
    sequences: tuple[bytes, ...]
    """Decimal numbers."""
    stored: tuple[bytes, ...]
    """Nanoseconds since 1970, as decimal numbers that all have the same length."""
    headers: tuple[bytes, ...]


class DeliveredReader(Generic[T]):
    """Reads the messages of a batch: see RunReader.

    For each message, it takes a tenth of the time that it takes to parse, gather and check it by
    itself. Whatever is not of the usual form is left to the parser.
    """

    def __init__(
        self, decode: Callable[[Run], T], subject_filter: str, place: bytes, after: int = 0
    ) -> None:
        """Make a reader of a consumer's messages.

        ``decode`` is called with each run at once, since the server prepares further messages
        meanwhile. It must not raise. The filter ends with ``>``. ``place`` is the consumer's stream
        and name, each with a dot after it. Messages up to the sequence ``after`` are left to the
        parser.
        """
        self.count = 0
        """How many messages were read."""
        self.last = 0
        """The sequence of the last one."""
        self.decoded: list[T] = []
        """What ``decode`` has returned."""
        self._decode = decode
        self._head = b" " + subject_filter[:-1].encode()
        self._place = place
        self._after = after
        self._refusals = 0

    def read_run(self, data: bytes, start: int, subject: bytes, sid: bytes) -> int:
        """Read whole messages but for the last one, with which the batch may end."""
        line = data[start : data.find(b"\r\n", start)]
        reply_to = line.split(b" ")[3] if line.count(b" ") == 5 else b""
        head, place, _ = reply_to.partition(self._place)
        if self._refusals > _MOST_REFUSALS or not place or not is_ack(head):
            return start
        ack = head + place
        frames = _frames(len(ack))
        found = frames.findall(data, start)
        rest = found[-1][-1]
        if rest:
            del found[-1]  # it is no message
        if len(found) < 2:
            return start
        lines, sequences, stored, sizes, headers, _ = zip(*found, strict=True)
        tail = b" %b %b" % (sid, ack)
        if (b"\n".join(lines) + b"\n").count(tail + b"\n") != len(found):
            # Another consumer's messages, or of another subscription, are among them.
            self._refusals += 1
            for frame in frames.finditer(data, start):
                if frame.lastindex != _REST and not frame[1].endswith(tail):
                    return self.read_run(data[: frame.start()], start, subject, sid)
            return start
        subjects = [line[: -len(tail)] for line in lines]
        text = b" %b " % b" ".join(subjects)
        size = len(data) - len(rest) - start
        # The pattern lets more through than the parser takes for these messages.
        if (
            text.count(b" ") != len(found) + 1
            or text.count(self._head) != len(found)
            or self._head + b" " in text
            or any(space in text for space in _SPACES)
            or not text.isascii()
            or any(
                int(each) != len(header) for each, header in set(zip(sizes, headers, strict=True))
            )
            or (self._after and min(map(int, sequences)) <= self._after)
            or size > len(found) * _MOST_BYTES
            or b"\r\nHMSG " in headers[-1]
        ):
            self._refusals += 1
            return start
        run = Run(subjects[:-1], sequences[:-1], stored[:-1], headers[:-1])
        self.decoded.append(self._decode(run))
        self.count += len(found) - 1
        self.last = int(sequences[-2])
        return data.rindex(b"\r\nHMSG ", start, start + size) + 2


def is_ack(head: bytes) -> bool:
    """Return True if the subject for an acknowledgement begins with this, before the stream."""
    return head == _ACK or _ACK_ELSEWHERE.fullmatch(head) is not None


_ACK = b"$JS.ACK."
_ACK_ELSEWHERE = re.compile(rb"\$JS\.ACK\.[^.]+\.[^.]+\.")  # from another JetStream domain
_SPACES = (b"\r", b"\n", b"\t", b"\v", b"\f")
_MOST_REFUSALS = 8
"""How often a batch may have messages that are left to the parser after a look at all that follows,
since the next look is at nearly the same messages."""
_MOST_BYTES = 16 * 1024
"""Size of a message, on average: their number limits the memory that they take."""


_REST = 6
"""The number of the last group."""


@lru_cache(maxsize=64)
def _frames(ack_length: int) -> re.Pattern[bytes]:
    """Return a pattern whose matches are the frames of messages without payload, and the rest.

    The groups are: subject, id of the subscription and the first bytes of the reply subject;
    sequence; time in nanoseconds; the header's size; the header; the rest.
    """
    return re.compile(
        rb"HMSG ([^ ]+ [^ ]+ (?s:.{%d}))[0-9]{1,19}\.([1-9][0-9]{0,17})\.[0-9]{1,19}"
        rb"\.([1-8][0-9]{18})\.[0-9]{1,19}(?:\.[^. \r\n]+)? ([0-9]{1,5}) \4\r\n"
        rb"(NATS/1\.0\r\n(?:[^\r]+\r\n)+\r\n)\r\n|((?s:.+))" % ack_length
    )
