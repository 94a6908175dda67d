"""Reading a bucket: entries by keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import keys as key_names
from ..exceptions import InvalidKey
from .bucket import BucketConfig
from .clock import Timed
from .entry import Entry, entry_of
from .opening import Server
from .recent import Recent
from .steps import Steps
from .wire import Message

if TYPE_CHECKING:
    from .copies import Attempt, Copies

logger = logging.getLogger("django_nats")

MAX_KEY_BYTES = 8192


class Reading(Timed[BucketConfig]):
    """The part of a bucket that reads, and knows what this process has written."""

    def __init__(
        self, config: BucketConfig, server: Server, recent: Recent, copies: Sequence[Copies] = ()
    ) -> None:
        super().__init__(config, server, recent)
        self._copies = copies
        self._subject = f"$KV.{config.name}."
        self._said_full = False
        self.max_message = config.max_value_size

    def _learn(self, document: Mapping[str, Any]) -> None:
        super()._learn(document)
        limit = document["config"].get("max_msg_size", -1)
        self.max_message = limit if limit > 0 else self.config.max_value_size

    def get(self, key: str) -> Steps[Entry | None]:
        """The value of a key, or None. One round trip."""
        subject = self._subject + self._encode(key)
        if self._copies:
            return (yield from self._get_and_tell(key, subject))
        message = yield from self._last(subject)
        return None if message is None else self._entry(message)

    def _get_and_tell(self, key: str, subject: str) -> Steps[Entry | None]:
        """A read from which copies are made: of the leader, since with a replica that lags behind
        they would go back in time."""
        attempts = self._begin(key, subject)
        try:
            message = yield from self._last(subject, leader=self.replicated and bool(attempts))
            entry = None if message is None else self._entry(message)
        except BaseException:
            for copies, attempt in attempts:
                copies.give_up(attempt)
            raise
        for copies, attempt in attempts:
            copies.end_read(attempt, entry, self._clock)
        return entry

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """The values of those keys that have one. One round trip up to MAX_BATCH keys."""
        encoded = key_names.encode_plain(keys) or map(self._encode, keys)
        wanted = {self._subject + each: key for each, key in zip(encoded, keys, strict=True)}
        if self._copies:
            return (yield from self._get_many_and_tell(wanted))
        found = yield from self._last_of(list(wanted))
        return self._entries(found, wanted)

    def _get_many_and_tell(self, wanted: Mapping[str, str]) -> Steps[dict[str, Entry]]:
        attempts = {each: self._begin(wanted[each], each) for each in wanted}
        copied = [each for each in wanted if attempts[each]]
        found: dict[str, Message | None] = {}
        try:
            if self.replicated:
                yield from self._batch_from_leader(copied, found)
                others = [each for each in wanted if not attempts[each]]
                found.update((yield from self._last_of(others)))
            else:
                found = yield from self._last_of(list(wanted))
            entries = self._entries(found, wanted)
        except BaseException:
            for each in copied:
                for copies, attempt in attempts[each]:
                    copies.give_up(attempt)
            raise
        for each in copied:
            for copies, attempt in attempts[each]:
                copies.end_read(attempt, entries.get(wanted[each]), self._clock)
        return entries

    def heard(self, subject: str | None, revision: int) -> None:
        """Tell those who keep copies of a change, or, without a subject, that anything may have
        changed up to a revision: nobody who knows of it reads older copies then."""
        for copies in self._copies:
            if subject is None:
                copies.cleared(revision)
            else:
                copies.changed(subject, revision)

    def _begin(self, key: str, subject: str) -> list[tuple[Copies, Attempt]]:
        """Tell those who keep copies of a key that it is about to be read or written."""
        return [(each, each.begin(key, subject)) for each in self._copies if each.covers(key)]

    def _entries(
        self, found: Mapping[str, Message | None], wanted: Mapping[str, str]
    ) -> dict[str, Entry]:
        entries = {}
        now = self.now_at_least
        for subject, message in found.items():
            entry = None if message is None else entry_of(message, now)
            if entry is not None:
                entries[wanted[subject]] = entry
        return entries

    def _entry(self, message: Message) -> Entry | None:
        """A message as a value; None when it is a tombstone or has expired."""
        return entry_of(message, self.now_at_least)

    def _remember(self, subject: bytes, sequence: int) -> None:
        """Note what this process has written, as the bucket acknowledged it."""
        if self._said_full:
            self._said_full = False
            logger.warning("The bucket %s takes values again", self.config.name)
        super()._remember(subject, sequence)

    @property
    def _from_leader(self) -> bool:
        return self.config.reads == "leader"

    def _encode(self, key: str) -> str:
        encoded = key_names.encode(key)
        if len(encoded) > 1000 and len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidKey(
                f"The key {key[:60]!r}… has {len(key.encode())} bytes; at most {MAX_KEY_BYTES} "
                f"can be stored. Use a digest of it."
            )
        return encoded
