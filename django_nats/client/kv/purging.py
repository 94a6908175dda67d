"""Deleting keys of a bucket that takes no tombstones: it is full, or the account may not write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...exceptions import BucketFull, NatsError, WrongRevision
from ..protocol import documents, wire
from ..protocol.steps import Request, Steps
from ..protocol.wire import Reply
from ..streams.messages import Messages
from ..streams.requests import begun, raise_error
from ..streams.stream import Stream
from .near_caches import NearCaches
from .tombstones import Tombstones
from .writing import EXPECTED


class Purges:
    """Purges keys, which the server does in a full bucket too, and then announces it.

    A purge itself is announced to nobody: feeds learn of it from the tombstones that are published
    afterwards, as far as they are permitted and the purge has made room for them.
    """

    def __init__(
        self,
        stream: Stream[Any],
        messages: Messages,
        near_caches: NearCaches,
        tombstones: Tombstones,
    ) -> None:
        self._stream = stream
        self._messages = messages
        self._near_caches = near_caches
        self._tombstones = tombstones
        self._subject = stream.api.purge

    def run(
        self, subjects: Mapping[str, str], revisions: Mapping[str, int | None]
    ) -> Steps[tuple[set[str], dict[str, NatsError]]]:
        """Purge keys, given with their subjects, and announce that.

        With a revision, what was written after it stays: another's value, or its announcement.
        Return the keys that had something to purge, and those that failed, with the reason. A key
        that is among both was purged, but near caches of other processes may still have its value.
        """
        purges = []
        for key, revision in revisions.items():
            what: dict[str, Any] = {"filter": subjects[key]}
            if revision is not None:
                what["seq"] = revision + 1
            purges.append(self.request(**what))
        purged: set[str] = set()
        failed: dict[str, NatsError] = {}
        try:
            answers = yield from self._stream.pipeline(purges)
            for key, answer in zip(revisions, answers, strict=True):
                try:
                    if self.count(raise_error(answer)):
                        purged.add(key)
                        self._distrust_replicas(subjects[key], revisions[key] or 0)
                except NatsError as error:
                    failed[key] = error
            yield from begun(self._announce({key: subjects[key] for key in purged}, failed))
        finally:
            for subject in subjects.values():
                self._near_caches.forget(subject)
        return purged, failed

    def request(self, **what: Any) -> Request:
        """Return a request for a purge: of all the stream, unless a filter is given."""
        payload = wire.compact_json(what) if what else b""
        return Request(self._stream.lanes.writes, self._subject, payload)

    def count(self, reply: Reply) -> int:
        """Return how many messages a purge has removed. Raises the error it was answered with."""
        return wire.parse_api(reply, documents.PURGED)["purged"]  # type: ignore[no-any-return]

    def _distrust_replicas(self, subject: str, revision: int) -> None:
        """Note that replicas may still have what the leader has purged, unless it is newer."""
        recent = self._stream.recent
        recent.note_purged(subject.encode(), max(recent.newest, revision))

    def _announce(self, subjects: Mapping[str, str], failed: dict[str, NatsError]) -> Steps[None]:
        """Publish the tombstones of purged keys, as far as there is room for them now."""
        tombstones = [
            self._tombstones.request(subject, key, **{EXPECTED: "0"})
            for key, subject in subjects.items()
        ]
        answers = (yield from self._stream.pipeline(tombstones)) if tombstones else []
        for (key, subject), answer in zip(subjects.items(), answers, strict=True):
            try:
                ack = self._messages.acknowledged(raise_error(answer))
                self._messages.remember(subject.encode(), ack.sequence)
            except (BucketFull, WrongRevision):
                pass  # another writer took the room, or the key; the value is deleted all the same
            except NatsError as error:
                failed[key] = error
