"""What streams have counted for all keys, for those who look at limits from outside."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..client.counters.stream import CounterStream
from ..client.counters.totals import text_of_subject
from ..client.protocol.steps import Steps, next_item
from ..client.protocol.wire import Message
from ..client.streams.scan import last_messages
from ..keys import token
from .tally import window_at

_COUNTER = re.compile(r"([-/\w=]+)\.([-/\w=]+)\.([0-9]{1,8})\.([0-9]{1,12})", re.ASCII)
"""The subject of a counter, as tally.py makes it: limit, key, length and number of the window."""

ALL = "*"
"""Stands for the tokens of all keys."""


class Hits(NamedTuple):
    """The hits of one key in windows of one length."""

    limit: str
    """The token of the limit's name."""
    key: str
    """The token of the key."""
    seconds: int
    current: int
    """The hits of the current window."""
    previous: int
    """The hits of the window before."""
    elapsed: float
    """The seconds that have passed of the current window."""


def stored_hits(
    stream: CounterStream,
    limit: str | None = None,
    key: str = ALL,
    now: float | None = None,
) -> Steps[list[Hits]]:
    """Return the hits that count now, of all limits or one, and of one token of a key or ALL.

    ``now`` is in seconds since 1970, by default the server's time. Nothing is created: a stream
    that does not exist has no hits.
    """
    if (yield from stream.stream.opening.info()) is None:
        return []
    now = stream.now() if now is None else now
    prefix = f"{stream.config.prefix}."
    head = ALL if limit is None else token(limit) or "="  # which no limit has
    listing = last_messages(stream.stream, f"{prefix}{head}.{key}.*.*")
    found: dict[tuple[str, str, int], Hits] = {}
    try:
        while (item := (yield from next_item(listing))) is not None:
            for reply, sequence, _ in item.value:
                counter = text_of_subject(reply.subject).removeprefix(prefix)
                message = Message(reply.subject, sequence, reply.header, reply.payload, b"")
                _add(found, counter, stream.totals.in_list(counter, message), now)
    finally:
        listing.close()
    return list(found.values())


def _add(
    found: dict[tuple[str, str, int], Hits], counter: str, total: int | None, now: float
) -> None:
    """Add what one window has counted, unless it does not matter any more."""
    parts = _COUNTER.fullmatch(counter)
    if parts is None or not total:
        return
    limit, key, seconds = parts[1], parts[2], int(parts[3])
    if not seconds:
        return
    number, elapsed = window_at(key, seconds, now)
    hits = found.get((limit, key, seconds)) or Hits(limit, key, seconds, 0, 0, elapsed)
    if int(parts[4]) == number:
        found[limit, key, seconds] = hits._replace(current=total)
    elif int(parts[4]) == number - 1:
        found[limit, key, seconds] = hits._replace(previous=total)
