"""Going through the keys of a bucket."""

from __future__ import annotations

from typing import NamedTuple

from .. import keys as key_names
from ..exceptions import InvalidKey
from . import wire
from .consumer import BATCH, Met, last_messages
from .entry import format_of
from .kv import Bucket
from .steps import Item, Steps, next_item


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
    subject_filter = f"$KV.{bucket.config.name}.{key_names.subject_filter(pattern)}"
    messages = last_messages(bucket, subject_filter, batch=batch, headers_only=True)
    try:
        while (item := (yield from next_item(messages))) is not None:
            for met in item.value:
                listed = _listed(bucket, met)
                if listed is not None and matches(listed.key):
                    yield Item(listed)
    finally:
        messages.close()


def _listed(bucket: Bucket, met: Met) -> Listed | None:
    reply = met.reply
    if wire.is_tombstone(reply.header):
        return None
    _, expires = format_of(wire.format_field(reply.header), met.stored)
    if expires is not None and expires <= bucket.now():
        return None
    key = key_of(bucket.config.name, reply.subject, reply.header)
    return None if key is None else Listed(key, met.sequence)


def key_of(bucket: str, subject: bytes, header: bytes) -> str | None:
    """The made key of a message of a bucket; None for what is no key of a Django cache."""
    try:
        subject_key = subject.decode()[len(bucket) + 5 :]
        key = key_names.decode(subject_key)
        if key is None:
            # What a header claims to be the key counts only if it is the one that is stored.
            key = wire.unquote_key(wire.field(header, wire.KEY_HEADER) or "")
            if key_names.encode(key) != subject_key:
                return None
    except (InvalidKey, UnicodeDecodeError):
        return None  # another client's key, or the package's own
    return key
