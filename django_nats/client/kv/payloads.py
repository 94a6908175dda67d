"""The replies to a batch get, read straight into payloads and their formats."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from ..protocol.wire import PLAIN_HEADER
from ..streams.clock import Clock
from .lifetimes import Lifetimes, life_key

Payload: TypeAlias = "tuple[bytes, str | None]"
"""A value's bytes, and its format as in an Entry."""
PayloadAt: TypeAlias = "tuple[bytes, str | None, int]"
"""A payload, and its revision."""

_AT_ONCE_BYTES = 128 * 1024
"""How far ahead replies are looked for, since these bytes are copied."""
_MOST_STOPS = 4
"""How often an odd reply may end a run. A batch with more is left to the parser: each new run costs
another look at all that follows."""
_match_value = re.compile(rb"([0-9]{1,10}) ([0-9]{1,10})\r\n" + PLAIN_HEADER).match


class PayloadReader:
    """Reads values that this package has stored, and that are sure to be live.

    For each value, it takes a third of the time of the parser, ``parse_direct`` and ``entry_of``
    together. It leaves to them whatever else is stored, and values that are about to expire.
    """

    def __init__(self, subjects: Iterable[str], clock: Clock, lifetimes: Lifetimes) -> None:
        """Make a reader of the last messages of some subjects."""
        self.taken: dict[str, Payload] = {}
        """What was read, by subject."""
        self._subjects = {subject.encode(): subject for subject in subjects}
        self._clock = clock
        self._stops = 0
        self._lifetimes = lifetimes

    def drop(self, subject: str) -> None:
        """Drop what was read for a subject."""
        del self.taken[subject]

    @property
    def count(self) -> int:
        """Return how many replies were read."""
        return len(self.taken)

    def read_run(self, data: bytes, start: int, subject: bytes, sid: bytes) -> int:
        """Read replies as far as they are plain values: see RunReader."""
        head = b"HMSG %b %b " % (subject, sid)
        if self._stops >= _MOST_STOPS or not data.startswith(head, start):
            return start
        separator = b"\r\n" + head
        parts = data[start + len(head) : start + _AT_ONCE_BYTES].split(separator)
        del parts[-1]
        taken, subjects, lifetimes = self.taken, self._subjects, self._lifetimes
        around = len(separator)
        now = self._clock.now()
        for part, match in zip(parts, map(_match_value, parts), strict=True):
            if match is None:
                break
            header_size, total, field, stored_subject, _, stamp = match.groups()
            # A payload may contain what looks like the head of a reply. Then the sizes do not fit.
            size, edge = len(part), match.end()
            line = len(header_size) + len(total) + 3
            if edge - line != int(header_size) or size - line != int(total):
                break
            life = lifetimes[life_key(field, stamp)]
            asked = subjects.get(stored_subject)
            if asked is None or not life.is_certain(stamp, now):
                break
            taken[asked] = part[edge:], life.format
            start += around + size
        else:
            return start
        self._stops += 1
        return start
