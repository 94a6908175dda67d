"""Dictionaries in a cache that many callers change at once, so that no change of a key is lost.

The session engines are made of these steps. A record is what a caller knows to be stored. When
another caller has stored something else meanwhile, the record says what this caller has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..client.kv.bucket import MAX_ROUNDS
from ..client.kv.entry import Entry
from ..client.kv.payloads import PayloadAt
from ..client.kv.writing import chance
from ..client.protocol.steps import Pause, Steps
from ..exceptions import InvalidKey, Unreadable, WrongRevision
from ..keys import encode
from ..merging import merge
from . import NatsCache
from .core import logger
from .unstored import raise_failure

Data = dict[str, Any]


class Record(NamedTuple):
    """What a caller knows to be stored under a key."""

    sequence: int | None
    """Of the key's last message; 0 for none, and None if it is not known."""
    decode: Callable[[], Data]
    """Returns the dictionary, made from its bytes at each call."""


class Records:
    """The dictionaries of one cache. Keys are those of ``cache.get()``.

    All keys have a prefix. What follows it is a secret.
    """

    def __init__(self, cache: NatsCache, prefix: str) -> None:
        self._cache = cache
        prefixes = "|".join(re.escape(each) for each in (prefix, encode(prefix)))
        self._secret = re.compile(rf"({prefixes})\w+")

    def read(self, key: str) -> Steps[tuple[Data | None, Record]]:
        """Return a dictionary, or None if the key has none that can be read, and its record.

        One round trip, or none for a copy of the near cache. That a key has no value is asked for
        once more, of the leader: the visitor of a missing session is logged out.
        """
        made_key = self._cache.make_and_validate_key(key)
        found: PayloadAt | None = self._copied(made_key)
        sequence = 0
        try:
            if found is None:
                found = yield from self._cache.bucket.get_payload(made_key)
            if found is None:
                sequence, entry = yield from self._cache.bucket.latest(made_key)
                found = None if entry is None else entry[:3]
        except InvalidKey:
            pass  # too long to be stored: it has no value
        record = Record(sequence, dict) if found is None else self._record(made_key, *found)
        return self._decoded(found and record), record

    def _copied(self, made_key: str) -> PayloadAt | None:
        """Return the near cache's copy of a key, or None if the server must be asked.

        A copy of the fact that a key has no value is not trusted.
        """
        near = self._cache.near
        copy = None if near is None else near.find(made_key)
        if near is not None and copy is None:
            near.start()
        return None if copy is None or copy.entry is None else copy.entry[:3]

    def add(self, key: str, data: Data, seconds: float) -> Steps[Record | None]:
        """Store a dictionary if the key has none. Return None if it has one."""
        made_key = self._cache.make_and_validate_key(key)
        if seconds <= 0:
            sequence, entry = yield from self._cache.bucket.latest(made_key)
            return Record(sequence, dict) if entry is None else None
        write = self._cache._write(made_key, data, self._cache.get_backend_timeout(seconds))

        def is_readable(entry: Entry) -> bool:
            return self._decoded(self._record(made_key, *entry[:3])) is not None

        adding = self._cache.bucket.compare_and_set(made_key, write, 0, is_readable)
        revision = yield from adding
        if revision is None:
            return None
        return self._record(made_key, write.payload, write.format, revision)

    def store(self, key: str, data: Data, seconds: float, sequence: int) -> Steps[Record | None]:
        """Store a dictionary if the key's last message has a sequence. Return None if not.

        With 0 seconds or less, the key is deleted instead.
        """
        return self._store(self._cache.make_and_validate_key(key), data, seconds, sequence)

    def _store(
        self, made_key: str, data: Data, seconds: float, sequence: int
    ) -> Steps[Record | None]:
        if seconds <= 0:
            failed = yield from self._cache.bucket.delete_many([made_key], {made_key: sequence})
            raise_failure(failed)
            return None if failed else Record(None, dict)
        write = self._cache._write(made_key, data, self._cache.get_backend_timeout(seconds))
        revision = yield from self._cache.bucket.put_at(made_key, write, sequence)
        if revision is None:
            return None
        return self._record(made_key, write.payload, write.format, revision)

    def update(
        self, key: str, data: Data, record: Record | None, seconds: Callable[[Data], float]
    ) -> Steps[Record | None]:
        """Store a dictionary, and keep what other callers have changed in it since ``record``.

        Their changes are made in ``data``, too; ``seconds`` says for how long to store the result.
        Without a record, ``data`` replaces what is stored. One round trip if nothing was changed.

        Return None, and store nothing, if the key has no value any more.
        """
        made_key = self._cache.make_and_validate_key(key)
        for _ in range(MAX_ROUNDS):
            if record is not None and record.sequence is not None:
                storing = self._store(made_key, data, seconds(data), record.sequence)
                stored = yield from storing
                if stored is not None:
                    return stored
                yield Pause(chance.uniform(0, 0.003))
            _, entry = yield from self._cache.bucket.latest(made_key)
            latest = entry and self._record(made_key, *entry[:3])
            theirs = self._decoded(latest)
            if theirs is None:
                return None
            if record is not None:
                self._merge(made_key, data, theirs, record)
            record = latest
        raise WrongRevision(f"The session was changed {MAX_ROUNDS} times while it was being saved")

    def take(self, key: str, data: Data, record: Record | None) -> Steps[None]:
        """Delete a key, and make in ``data`` what others have changed in it since ``record``."""
        made_key = self._cache.make_and_validate_key(key)
        entry = yield from self._cache.bucket.pop(made_key)
        if entry is not None and record is not None and entry.revision != record.sequence:
            theirs = self._decoded(self._record(made_key, *entry[:3]))
            if theirs is not None:
                self._merge(made_key, data, theirs, record)

    def discard(self, *keys: str) -> Steps[None]:
        """Delete keys, whether they have a value or not. One round trip.

        A key that cannot be stored, such as one that is too long, has no value.
        """
        made_keys = [self._cache.make_and_validate_key(key) for key in keys]
        try:
            failed = yield from self._cache.bucket.delete_many(made_keys)
        except InvalidKey:
            for key in keys if len(keys) > 1 else ():
                yield from self.discard(key)
        else:
            raise_failure(failed)

    def _merge(self, made_key: str, data: Data, theirs: Data, record: Record) -> None:
        def as_read(data: Mapping[Any, Any]) -> Any:
            return self._cache._as_read(made_key, data, self._cache._write(made_key, data, None))

        merge(data, theirs, base=record.decode(), as_read=as_read)

    def hide_key(self, error: BaseException | None) -> None:
        """Take keys out of the text of an error and its causes."""
        while error is not None:
            text = str(error)
            if self._secret.search(text):
                error.args = (self._secret.sub(r"\1…", text),)
            error = error.__cause__

    def _decoded(self, record: Record | None) -> Data | None:
        """Return the dictionary of a record, or None if there is none, or none that can be read.

        Count a hit or a miss. The log does not get the key, which may be a secret.
        """
        bucket, value = self._cache.bucket, None
        if record is not None:
            try:
                value = record.decode()
            except Unreadable as error:
                logger.warning(
                    "Cache %r: a session is unreadable and counts as missing: %s",
                    self._cache.alias,
                    error,
                )
        if not isinstance(value, dict):
            bucket.misses += 1
            return None
        bucket.hits += 1
        return value

    def _record(self, made_key: str, payload: bytes, format: str | None, revision: int) -> Record:
        return Record(revision, partial(self._decode, payload, format, key=made_key))

    def _decode(self, payload: bytes, format: str | None, *, key: str) -> Any:
        return self._cache._codec.decode(payload, format, key=key)
