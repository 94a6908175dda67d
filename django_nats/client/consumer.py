"""Going through the last messages of a stream, however many, without holding anything up."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from ..exceptions import NoLeader
from . import wire
from .exchange import Exchange
from .steps import Item, Request, Steps
from .streamconfig import NANOSECONDS
from .wire import Reply

FIRST_BATCH = 100  # small, so that the first message comes at once
BATCH = 1000
_IDLE = 300  # seconds between two batches, after which the server takes the reader for dead
_ENDS = (0, 404, 408)  # a whole batch, nothing more, or nothing more at the moment


class Met(NamedTuple):
    """A message that a consumer delivered."""

    reply: Reply
    sequence: int
    stored: float
    """Seconds since 1970."""


def last_messages(
    stream: Exchange[Any], subject_filter: str, *, batch: int = BATCH, headers_only: bool = False
) -> Steps[None]:
    """Yield lists of what is last on each subject that a filter lets through.

    Memory stays at one batch. What is stored meanwhile may or may not be met.
    """
    consumer, left = yield from _consumer(stream, subject_filter, headers_only)
    size = min(FIRST_BATCH, batch)
    try:
        while left:
            replies = yield from _next_batch(stream, consumer, size)
            met = [_met(reply) for reply in replies if not wire.status(reply)]
            size, left = batch, _left(met[-1].reply) if met else 0
            yield Item(met)
    finally:
        # Without waiting: an iteration may be given up, and a closed generator cannot ask.
        delete = f"$JS.API.CONSUMER.DELETE.{stream.config.stream}.{consumer}"
        stream.post(Request(stream.writes, delete))


def _consumer(
    stream: Exchange[Any], subject_filter: str, headers_only: bool
) -> Steps[tuple[str, int]]:
    """Its name, and how many messages it has to deliver."""
    name = f"keys-{secrets.token_hex(8)}"
    config = {
        "name": name,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "headers_only": headers_only,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE * NANOSECONDS,
        "filter_subject": subject_filter,
    }
    where = stream.config.stream
    payload = wire.compact_json({"stream_name": where, "config": config})
    request = Request(stream.writes, f"$JS.API.CONSUMER.CREATE.{where}.{name}", payload)
    reply = yield from stream.ask(request)
    return name, wire.parse_api(reply).get("num_pending", 0)


def _next_batch(stream: Exchange[Any], consumer: str, size: int) -> Steps[list[Reply]]:
    request = Request(
        stream.writes,
        f"$JS.API.CONSUMER.MSG.NEXT.{stream.config.stream}.{consumer}",
        wire.compact_json({"batch": size, "no_wait": True}),
        gather=size,
        inbox=True,
    )
    replies: list[Reply] = yield request
    ended = wire.status(replies[-1])
    if ended not in _ENDS:
        raise NoLeader(f"The listing was lost with the server that held it ({ended})")
    return replies


# $JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<seq>.<seq>.<ns>.<pending>[…]
def metadata(reply: Reply) -> list[bytes]:
    """Of a delivered message: its sequences in stream and consumer, nanoseconds, what is left."""
    tokens = reply.reply_to.split(b".")
    return tokens[5 if len(tokens) == 9 else 7 :]


def _met(reply: Reply) -> Met:
    sequence, _, stored, *_ = metadata(reply)
    return Met(reply, int(sequence), int(stored) / NANOSECONDS)


def _left(reply: Reply) -> int:
    """How many messages the consumer has still to deliver."""
    return int(metadata(reply)[3])
