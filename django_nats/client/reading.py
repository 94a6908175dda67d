"""Reading a bucket: from any replica, or from the leader where that matters."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .. import keys as key_names
from ..exceptions import InvalidKey
from . import wire
from .bucket import BucketConfig
from .entry import Entry, entry_of
from .exchange import Exchange, in_chunks, raise_error
from .opening import Server
from .recent import Recent
from .steps import Request, Steps
from .wire import Message, Reply

logger = logging.getLogger("django_nats")

MAX_BATCH = 1024
"""Keys in one batch get; the server refuses more."""
MAX_BATCH_BYTES = 256 * 1024
MAX_BATCH_REPLY = 4 * 1024 * 1024
"""Bytes the server sends for one batch; its own bound is all that it lets a slow client fall
behind before it drops the connection."""
MAX_FROM_LEADER = 128
"""Messages asked of the leader at once, for the same reason: it sends each on its own."""
MAX_KEY_BYTES = 8192


class Reading(Exchange):
    """The part of a bucket that reads, and knows what this process has written."""

    def __init__(self, config: BucketConfig, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._subject = f"$KV.{config.name}."
        self._direct = f"$JS.API.DIRECT.GET.{config.stream}"
        self._leader = f"$JS.API.STREAM.MSG.GET.{config.stream}"
        self._said_full = False

    def get(self, key: str) -> Steps[Entry | None]:
        """The value of a key, or None. One round trip."""
        message = yield from self._last(self._subject + self._encode(key))
        return None if message is None else self._entry(message)

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """The values of those keys that have one. One round trip up to MAX_BATCH keys."""
        wanted = {self._subject + self._encode(key): key for key in keys}
        found: dict[str, Message | None] = {}
        if self._from_leader:
            yield from self._batch_from_leader(list(wanted), found)
        else:
            yield from self._batch(list(wanted), found)
            stale = [each for each in wanted if self._is_stale(each, found.get(each))]
            yield from self._batch_from_leader(stale, found)
        entries = {}
        for subject, message in found.items():
            entry = None if message is None else self._entry(message)
            if entry is not None:
                entries[wanted[subject]] = entry
        return entries

    def _batch(self, subjects: list[str], found: dict[str, Message | None]) -> Steps[None]:
        while subjects:
            requests = []
            most = min(MAX_BATCH_BYTES, self._server.max_payload // 4)
            for chunk in in_chunks(subjects, MAX_BATCH, most, lambda each: len(each) + 3):
                payload = wire.compact_json({"multi_last": chunk, "max_bytes": MAX_BATCH_REPLY})
                requests.append(Request(self.reads, self._direct, payload, gather=MAX_BATCH + 1))
            unfinished = False
            for replies in (yield from self.pipeline(requests)):
                for reply in raise_error(replies):
                    if wire.status(reply) == 204:
                        unfinished = unfinished or wire.pending(reply.header) > 0
                        continue
                    message = wire.parse_direct(reply)
                    if message is not None:
                        found[message.subject.decode()] = message
            # The server ends a batch early that would not fit into its own buffers.
            left = [each for each in subjects if each not in found] if unfinished else []
            subjects = left if len(left) < len(subjects) else []

    def _last(self, subject: str, *, leader: bool = False) -> Steps[Message | None]:
        """The last message of a subject, tombstones and expired values included."""
        if leader or self._from_leader:
            return (yield from self._ask_leader(subject))
        reply = yield from self.ask(Request(self.reads, f"{self._direct}.{subject}"))
        message = wire.parse_direct(reply)
        if self._is_stale(subject, message):
            return (yield from self._ask_leader(subject))
        return message

    def _leader_request(self, subject: str) -> Request:
        return Request(self.writes, self._leader, wire.compact_json({"last_by_subj": subject}))

    def _ask_leader(self, subject: str) -> Steps[Message | None]:
        reply = yield from self.ask(self._leader_request(subject))
        return self._told_by_leader(subject, reply)

    def _batch_from_leader(
        self, subjects: list[str], found: dict[str, Message | None]
    ) -> Steps[None]:
        for start in range(0, len(subjects), MAX_FROM_LEADER):
            chunk = subjects[start : start + MAX_FROM_LEADER]
            replies = yield from self.pipeline([self._leader_request(each) for each in chunk])
            for subject, reply in zip(chunk, replies, strict=True):
                found[subject] = self._told_by_leader(subject, raise_error(reply))

    def _told_by_leader(self, subject: str, reply: Reply) -> Message | None:
        message = wire.parse_leader(reply)
        if self.replicated:
            # The replicas may lag behind what the leader tells, too.
            if message is None:
                self.recent.note_missing(subject)
            else:
                self.recent.note(subject, message.sequence)
        return message

    def _is_stale(self, subject: str, message: Message | None) -> bool:
        """Whether a replica answered that has not seen this process's own write yet."""
        return self.recent.is_stale(subject, None if message is None else message.sequence)

    def _entry(self, message: Message) -> Entry | None:
        """A message as a value; None when it is a tombstone or has expired."""
        self.stored_by_now(message.stamp)
        return entry_of(message, self.now())

    def _remember(self, subject: bytes, sequence: int) -> None:
        """Note what this process has written, as the bucket acknowledged it."""
        if self._said_full:
            self._said_full = False
            logger.warning("The bucket %s takes values again", self.config.name)
        if self.replicated:
            self.recent.note(subject.decode(), sequence)

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
