"""A value as the bucket holds it: bytes, the format they are in, and when they expire."""

from __future__ import annotations

import re
from typing import NamedTuple

from . import wire
from .wire import Message

# Bounded: whoever can write to the bucket could otherwise make a reader's arithmetic overflow.
_LIFETIME = re.compile(rb"(ms|at)=([0-9]{1,16})")
_SECONDS = re.compile("[0-9]{1,12}", re.ASCII)

UNREADABLE = "?"
"""A format nobody accepts: what has it is a miss that is logged."""


class Entry(NamedTuple):
    """A stored value: its bytes, its format token (None: another client's), its revision."""

    payload: bytes
    format: str | None
    revision: int
    expires: float | None
    """Seconds since 1970 on the server's clock; None for never."""


class Write(NamedTuple):
    """A value to be stored; seconds until it expires, or None for never."""

    payload: bytes
    format: str | None
    seconds: float | None
    expires: float | None = None
    """When it expires, as an Entry says it, where that stays as it was: seconds would begin anew
    with every write, and a value changed a thousand times a second would hardly age."""

    def fields(self) -> dict[str, str]:
        """The headers a reader needs: format and expiry."""
        # Another client's value keeps its lack of a format when it is given a new timeout.
        format = self.format or ""
        if self.expires is not None:
            format += f";at={round(self.expires * 1000)}"
        elif self.seconds is not None:
            format += f";ms={max(1, round(self.seconds * 1000))}"
        fields = {wire.FORMAT_HEADER: format} if format else {}
        return {**fields, "Nats-TTL": wire.ttl_field(self.seconds)}


def format_of(header: bytes, stored: float) -> tuple[str | None, float | None]:
    """The format of a value stored at a time, and when it expires, in seconds since 1970."""
    format, lifetime, rest = wire.format_field(header).partition(b";")
    match = _LIFETIME.fullmatch(rest)
    try:
        name = format.decode("ascii") or None
    except UnicodeDecodeError:
        return UNREADABLE, None
    if not lifetime:
        return name, None
    if match is None:
        return UNREADABLE, None
    expires = int(match[2]) / 1000 + (stored if match[1] == b"ms" else 0)
    return name, min(expires, stored + wire.MAX_TTL_SECONDS)


def entry_of(message: Message, now: float) -> Entry | None:
    """A message as a value; None when it is a tombstone, or has expired by the server's clock."""
    if message.deleted:
        return None
    stored = wire.epoch(message.stamp)
    format, expires = format_of(message.header, stored)
    if expires is not None:
        if expires <= now:
            return None
    elif format is None:
        ttl = wire.field(message.header, "Nats-TTL")
        if ttl is not None and _SECONDS.fullmatch(ttl):
            expires = stored + min(int(ttl), wire.MAX_TTL_SECONDS)
    return Entry(message.payload, format, message.sequence, expires)
