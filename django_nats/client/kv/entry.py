"""A value as the bucket stores it: bytes, their format, and when they expire."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import NamedTuple

from ..protocol import wire
from ..protocol.timestamps import epoch
from ..protocol.wire import Message, is_tombstone

# Bounded: other writers of the bucket could otherwise make a reader's arithmetic overflow.
_LIFETIME = re.compile(rb"(ms|at)=([0-9]{1,16})")
_SECONDS = re.compile("[0-9]{1,12}", re.ASCII)

UNREADABLE = "?"
"""A format that no reader accepts: such a value is a miss that is logged."""

EVERYTHING = 1 << 64
"""Newer than any revision."""


class Entry(NamedTuple):
    """A stored value: its bytes, its format token (None for another client's), its revision."""

    payload: bytes
    format: str | None
    revision: int
    expires: float | None
    """Seconds since 1970 on the server's clock; None for never."""


class Write(NamedTuple):
    """A value to be stored; ``seconds`` until it expires, or None for never."""

    payload: bytes
    format: str | None
    seconds: float | None
    expires: float | None = None
    """When it expires, as in an Entry, if that must stay as it was. ``seconds`` would start again
    with every write, and a value that changes often would never expire."""

    @property
    def header(self) -> bytes:
        """The block of headers of an unconditional write."""
        if self.expires is not None:
            return wire.header_block(self.fields())
        return _header(self.format, self.seconds)

    def stored(self, revision: int, now: float) -> Entry:
        """Return the entry that a reader will find if it is stored at this time, or soon after."""
        expires = self.expires
        if expires is None and self.seconds is not None:
            expires = now + self.seconds
        return Entry(self.payload, self.format or None, revision, expires)

    def fields(self) -> dict[str, str]:
        """Return the headers that a reader needs: format and expiry."""
        # Another client's value keeps its lack of a format when it is given a new timeout.
        format = self.format or ""
        if self.expires is not None:
            # Rounded down: the value must not outlive the one before. The hundredth is for floats.
            format += f";at={math.floor(self.expires * 1000 + 0.01)}"
        elif self.seconds is not None:
            format += f";ms={max(1, round(self.seconds * 1000))}"
        fields = {wire.FORMAT_HEADER: format} if format else {}
        return {**fields, "Nats-TTL": wire.ttl_field(self.seconds)}


new_write: Callable[[tuple[bytes, str | None, float | None, float | None]], Write]
new_write = partial(tuple.__new__, Write)  # without the call of __new__, as in wire.py


def headers_of(writes: Iterable[Write]) -> list[bytes]:
    """Return the header of each write. Of the writes of a batch, most have the same."""
    headers: dict[tuple[object, ...], bytes] = {}
    return [
        headers.get(write[1:]) or headers.setdefault(write[1:], write.header) for write in writes
    ]


@lru_cache(maxsize=1024)
def _header(format: str | None, seconds: float | None) -> bytes:
    return wire.header_block(Write(b"", format, seconds).fields())


def format_of(field: bytes, stored: float) -> tuple[str | None, float | None]:
    """Return the format's name, and when a value expires that was stored at a time."""
    # A header that is longer than any of this package is another client's, and is not cached.
    parse = _format if len(field) <= 64 else _format.__wrapped__
    name, seconds, moment = parse(field)
    if seconds is not None:
        return name, stored + seconds
    return name, None if moment is None else min(moment, stored + wire.MAX_TTL_SECONDS)


@lru_cache(maxsize=1024)  # most values of a cache have one of a few formats and lifetimes
def _format(field: bytes) -> tuple[str | None, float | None, float | None]:
    """Return a format's name, and the lifetime in seconds or the moment at which it expires."""
    format, lifetime, rest = field.partition(b";")
    match = _LIFETIME.fullmatch(rest)
    try:
        name = format.decode("ascii") or None
    except UnicodeDecodeError:
        return UNREADABLE, None, None
    if not lifetime:
        return name, None, None
    if match is None:
        return UNREADABLE, None, None
    number = int(match[2]) / 1000
    if match[1] == b"ms":
        return name, min(number, wire.MAX_TTL_SECONDS), None
    return name, None, number


def entry_of(message: Message, now: Callable[[float], float]) -> Entry | None:
    """Return a message as an entry; None if it is a tombstone, or has expired.

    ``now`` gets the time of the message, and returns the server's time, which is not before that.
    """
    _, sequence, header, payload, stamp, field = message
    if field is None:
        if is_tombstone(header):
            return None
        field = wire.format_field(header)
    stored = epoch(stamp)
    current = now(stored)
    format, expires = format_of(field, stored)
    if expires is not None:
        if expires <= current:
            return None
    elif format is None:
        ttl = wire.field(header, "Nats-TTL")
        if ttl is not None and _SECONDS.fullmatch(ttl):
            expires = stored + min(int(ttl), wire.MAX_TTL_SECONDS)
    return _entry((payload, format, sequence, expires))


# What named tuples do themselves, without the function that first collects the fields.
_entry: Callable[[tuple[bytes, str | None, int, float | None]], Entry]
_entry = partial(tuple.__new__, Entry)
