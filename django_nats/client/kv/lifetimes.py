"""When values expire, worked out once for all that have the same format and age."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from ...exceptions import UnexpectedReply
from ..protocol.timestamps import epoch
from .entry import format_of

MAX_KEPT = 4096
_LONGEST_FIELD = 64
"""A longer header is another client's, and is not kept."""
_SECOND = len("2030-01-01T00:00:00")


class Life(NamedTuple):
    """What is known of values by their header and the second in which they were stored."""

    format: str | None
    end_of_second: float
    """Seconds since 1970. Before that, such a value may be ahead of the estimated time."""
    expires: float
    """The earliest time at which such a value expires."""

    def is_certain(self, stamp: bytes, now: float) -> bool:
        """Return True if a value with this time stamp is sure to be live at a time."""
        return now < self.expires and (now >= self.end_of_second or epoch(stamp) <= now)


_UNKNOWN = Life(None, -inf, -inf)


class Lifetimes(dict[bytes, Life]):
    """The lives of values, by what life_key() returns. Those that are missing are worked out."""

    def __missing__(self, key: bytes) -> Life:
        field, second = key[:-_SECOND], key[-_SECOND:]
        try:
            stored = epoch(second + b"Z")
        except UnexpectedReply:
            return _UNKNOWN  # parse_direct() or entry_of() refuses it
        format, expires = format_of(field, stored)
        life = Life(format, stored + 1.0, inf if expires is None else expires)
        if len(field) <= _LONGEST_FIELD:
            if len(self) >= MAX_KEPT:
                self.clear()
            self[key] = life
        return life


def life_key(field: bytes, stamp: bytes) -> bytes:
    """Return the key of a value with this raw FORMAT_HEADER and this time stamp."""
    return field + stamp[:_SECOND]
