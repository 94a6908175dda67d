"""Going through the keys of a bucket, however many there are, without holding anything up."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from .. import keys as key_names
from ..exceptions import InvalidKey, NoLeader
from . import wire
from .bucket import NANOSECONDS
from .entry import format_of
from .kv import Bucket
from .steps import Item, Request, Steps
from .wire import Reply

FIRST_BATCH = 100  # small, so that the first key comes at once
BATCH = 1000
_IDLE = 300  # seconds between two batches, after which the server takes the reader for dead
_ENDS = (0, 404, 408)  # a whole batch, nothing more, or nothing more at the moment


class Listed(NamedTuple):
    """A key of a bucket, and the revision its value had when it was listed."""

    key: str
    revision: int


def iter_keys(bucket: Bucket, pattern: str, batch: int = BATCH) -> Steps[None]:
    """Yield the Listed keys whose made form matches a glob.

    The server narrows to the pattern's leading parts and sends headers only; memory stays at
    one batch. Keys set or deleted meanwhile may or may not be met, as with Redis's SCAN.
    """
    matches = key_names.matcher(pattern)
    consumer, left = yield from _consumer(bucket, pattern)
    size = min(FIRST_BATCH, batch)
    try:
        while left:
            replies = yield from _next_batch(bucket, consumer, size)
            size, left = batch, 0
            for reply in replies:
                if wire.status(reply):
                    continue
                sequence, stored, left = _metadata(reply)
                listed = _listed(bucket, reply, sequence, stored)
                if listed is not None and matches(listed.key):
                    yield Item(listed)
    finally:
        # Without waiting: an iteration may be given up, and a closed generator cannot ask.
        delete = f"$JS.API.CONSUMER.DELETE.{bucket.config.stream}.{consumer}"
        bucket.post(Request(bucket.writes, delete))


def _consumer(bucket: Bucket, pattern: str) -> Steps[tuple[str, int]]:
    """Its name, and how many messages it has to deliver."""
    name = f"keys-{secrets.token_hex(8)}"
    stream = bucket.config.stream
    config = {
        "name": name,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "headers_only": True,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE * NANOSECONDS,
        "filter_subject": f"$KV.{bucket.config.name}.{key_names.subject_filter(pattern)}",
    }
    payload = wire.compact_json({"stream_name": stream, "config": config})
    request = Request(bucket.writes, f"$JS.API.CONSUMER.CREATE.{stream}.{name}", payload)
    reply = yield from bucket.ask(request)
    return name, wire.parse_api(reply).get("num_pending", 0)


def _next_batch(bucket: Bucket, consumer: str, size: int) -> Steps[list[Reply]]:
    request = Request(
        bucket.writes,
        f"$JS.API.CONSUMER.MSG.NEXT.{bucket.config.stream}.{consumer}",
        wire.compact_json({"batch": size, "no_wait": True}),
        gather=size,
        inbox=True,
    )
    replies: list[Reply] = yield request
    ended = wire.status(replies[-1])
    if ended not in _ENDS:
        raise NoLeader(f"The listing of keys was lost with the server that held it ({ended})")
    return replies


def _metadata(reply: Reply) -> tuple[int, float, int]:
    """Sequence, seconds since 1970 when it was stored, and how many are still to come."""
    # $JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<seq>.<seq>.<ns>.<pending>[…]
    tokens = reply.reply_to.split(b".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 2]) / NANOSECONDS, int(tokens[first + 3])


def _listed(bucket: Bucket, reply: Reply, sequence: int, stored: float) -> Listed | None:
    if wire.is_tombstone(reply.header):
        return None
    _, expires = format_of(reply.header, stored)
    if expires is not None and expires <= bucket.now():
        return None
    try:
        subject_key = reply.subject.decode()[len(bucket.config.name) + 5 :]
        key = key_names.decode(subject_key)
        if key is None:
            # What a header claims to be the key counts only if it is the one that is stored.
            key = wire.unquote_key(wire.field(reply.header, wire.KEY_HEADER) or "")
            if key_names.encode(key) != subject_key:
                return None
    except (InvalidKey, UnicodeDecodeError):
        return None  # another client's key, or the package's own: no Django key
    return Listed(key, sequence)
