"""Reading entries of a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..protocol.steps import Request, Steps
from ..protocol.wire import Message, match_plain
from ..streams.clock import Clock
from ..streams.messages import Messages
from ..streams.stream import Stream
from .entry import Entry, entry_of
from .lifetimes import Lifetimes, life_key
from .near_caches import NearCaches
from .payloads import Payload, PayloadAt, PayloadReader
from .subjects import Subjects

MAX_REQUESTS = 4096
"""Requests that are kept, each for one key."""
_LONGEST_KEPT = 256
"""Characters. A request for a longer key is made each time, so that those kept stay small."""


class Reader:
    """Reads entries by key, and passes what it finds to the near caches.

    Keys that a near cache covers are read from the leader: with a replica that is behind, copies
    would go back in time.
    """

    def __init__(
        self,
        stream: Stream[Any],
        messages: Messages,
        subjects: Subjects,
        near_caches: NearCaches,
        clock: Clock,
    ) -> None:
        self._stream = stream
        self._opening = stream.opening
        self._messages = messages
        self._subjects = subjects
        self._near_caches = near_caches
        self._clock = clock
        self._lifetimes = Lifetimes()
        self._kept_request = lru_cache(MAX_REQUESTS)(self._request)

    def _request(self, key: str) -> tuple[str, bytes, Request]:
        """Return the subject of a key, as text and as bytes, and the request for its message."""
        subject = self._subjects.of(key)
        return subject, subject.encode(), self._messages.request(subject)

    def get(self, key: str) -> Steps[Entry | None]:
        """Return the entry of a key, or None. One round trip."""
        subject = self._subjects.of(key)
        near_caches = self._near_caches
        attempts = near_caches.begin(key, subject)
        try:
            if attempts and not self._opening.is_ready:
                yield from self._opening.ready()  # says whether there are replicas
            leader = self._opening.replicated and bool(attempts)
            entry = self.entry((yield from self._messages.last(subject, leader=leader)))
        except BaseException:
            near_caches.give_up(attempts)
            raise
        near_caches.end_read(attempts, entry)
        return entry

    def get_payload(self, key: str) -> Steps[PayloadAt | None]:
        """Return what ``get`` returns, without the time, in less time.

        The usual value, which this package has stored and which is sure to be live, takes one
        generator and one match, and 0.6 of the time of ``get``. All else is read as ``get`` reads
        it.
        """
        stream, messages = self._stream, self._messages
        if self._near_caches.copies or messages.from_leader or not self._opening.is_ready:
            entry = yield from self.get(key)
            return None if entry is None else entry[:3]
        find = self._kept_request if len(key) <= _LONGEST_KEPT else self._request
        subject, asked, request = find(key)
        reply = yield request
        plain = match_plain(reply.header)
        if plain is not None:
            field, stored_subject, digits, stamp = plain.groups()
            life, sequence = self._lifetimes[life_key(field, stamp)], int(digits)
            if (
                stored_subject == asked
                and life.is_certain(stamp, self._clock.now())
                and not stream.recent.is_stale(asked, sequence)
            ):
                return reply.payload, life.format, sequence
        reply = yield from stream.insist(request, reply)
        entry = self.entry((yield from messages.read(subject, reply)))
        return None if entry is None else entry[:3]

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """Return the entries of those keys that have one. One round trip up to MAX_BATCH keys."""
        wanted = self._subjects.of_many(keys)
        if not self._near_caches.copies:
            found = yield from self._messages.last_of(list(wanted))
            return self._entries(found, wanted)
        return (yield from self._get_many_and_copy(wanted))

    def get_payloads(self, keys: Sequence[str]) -> Steps[dict[str, Payload]]:
        """Return what ``get_many`` returns, without revisions and times, in less time."""
        if self._near_caches.copies:
            entries = yield from self.get_many(keys)
            return {key: (entry.payload, entry.format) for key, entry in entries.items()}
        wanted = self._subjects.of_many(keys)
        reader = PayloadReader(wanted, self._clock, self._lifetimes)
        found = yield from self._messages.last_of(list(wanted), reader)
        payloads = {wanted[each]: payload for each, payload in reader.taken.items()}
        for key, entry in self._entries(found, wanted).items():
            payloads[key] = entry.payload, entry.format
        return payloads

    def _get_many_and_copy(self, wanted: Mapping[str, str]) -> Steps[dict[str, Entry]]:
        near_caches = self._near_caches
        attempts = {each: near_caches.begin(wanted[each], each) for each in wanted}
        copied = [each for each in wanted if attempts[each]]
        found: dict[str, Message | None] = {}
        try:
            yield from self._opening.ready()  # says whether there are replicas
            if self._opening.replicated:
                yield from self._messages.add_from_leader(copied, found)
                others = [each for each in wanted if not attempts[each]]
                found.update((yield from self._messages.last_of(others)))
            else:
                found = yield from self._messages.last_of(list(wanted))
            entries = self._entries(found, wanted)
        except BaseException:
            for each in copied:
                near_caches.give_up(attempts[each])
            raise
        for each in copied:
            near_caches.end_read(attempts[each], entries.get(wanted[each]))
        return entries

    def current(self, subject: str, *, leader: bool) -> Steps[tuple[Message | None, Entry | None]]:
        """Return the last message of a subject, and the entry it is.

        A replica may say that a key has no value because it is behind: then the leader is asked.
        """
        message = yield from self._messages.last(subject, leader=leader)
        entry = self.entry(message)
        if entry is None and self._opening.replicated and not leader:
            return (yield from self.current(subject, leader=True))
        if entry is None:
            self._near_caches.forget(subject)
        else:
            self._near_caches.found(subject, entry.revision)
        return message, entry

    def entry(self, message: Message | None) -> Entry | None:
        """Return a message as an entry; None for none, for a tombstone and for an expired value."""
        return None if message is None else entry_of(message, self._clock.now_at_least)

    def _entries(
        self, found: Mapping[str, Message | None], wanted: Mapping[str, str]
    ) -> dict[str, Entry]:
        entries = {}
        now = self._clock.now_at_least
        for subject, message in found.items():
            entry = None if message is None else entry_of(message, now)
            if entry is not None:
                entries[wanted[subject]] = entry
        return entries
