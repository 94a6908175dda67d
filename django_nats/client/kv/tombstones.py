"""Tombstones: messages that say that a key has no value any more (ADR-8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import keys
from ..protocol import wire
from ..protocol.steps import Publications, Request
from ..streams.stream import Stream
from .subjects import Subjects

TOMBSTONE_TTL = "60"
"""Seconds. Long, because a change feed that is further behind would miss the delete."""


class Tombstones:
    """Makes the requests that publish tombstones in a bucket."""

    def __init__(self, stream: Stream[Any], subjects: Subjects) -> None:
        self._stream = stream
        self._subjects = subjects

    def request(self, subject: str, key: str = "", **conditions: str) -> Request:
        """Return a request that deletes a subject: it replaces the subject's messages."""
        if keys.is_hashed(subject):
            conditions[wire.KEY_HEADER] = wire.quote_key(key)  # feeds need the key itself
        published = self._subjects.published(subject)
        return Request(self._stream.lanes.writes, published, b"", _header(conditions))

    def publications(self, subjects: list[bytes]) -> Publications:
        """Return the messages that delete plain keys, given the subjects to publish them by."""
        count = len(subjects)
        return self._stream.publications(subjects, [b""] * count, [_header({})] * count)


def _header(conditions: Mapping[str, str]) -> bytes:
    fields = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": TOMBSTONE_TTL}
    return wire.header_block({**fields, **conditions})
