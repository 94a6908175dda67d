"""The operations on a bucket, each written once, as steps: here is what deletes.

Values are bytes with a format token; what they mean is the codec's business. Keys are Django's
made keys. Expiry is exact: judged by the server's clock, from the time the server stored the
value and the duration the value carries; the server's own TTL, in whole seconds, sweeps.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from .. import keys as key_names
from ..exceptions import BucketFull, NatsError, OutcomeUnknown, Unavailable, WrongRevision
from . import wire
from .bucket import BucketConfig
from .entry import EVERYTHING
from .opening import Server
from .recent import Recent
from .steps import Pause, Request, Steps
from .wire import Reply
from .writing import EXPECTED, PATIENCE, Writing, chance

if TYPE_CHECKING:
    from .copies import Copies

T = TypeVar("T")

TOMBSTONE_TTL = "60"
"""Seconds. Long, because a change feed that lags further than it would miss the delete."""


class Bucket(Writing):
    """One bucket, as seen by this process: shared by threads, loops and aliases."""

    def __init__(
        self,
        config: BucketConfig,
        server: Server,
        recent: Recent | None = None,
        copies: Sequence[Copies] = (),
    ) -> None:
        super().__init__(config, server, recent or Recent(), copies)
        self._purge = f"$JS.API.STREAM.PURGE.{config.stream}"
        # Of this process, for statistics: threads may overwrite each other's addition.
        self.hits = self.misses = 0

    def delete(self, key: str) -> Steps[bool]:
        """Remove a key; whether it had a value. Of several racing deletes exactly one says so."""
        yield from self.ready()
        subject = self._subject + self._encode(key)
        leader = False
        while True:
            message, entry = yield from self._current(subject, leader=leader)
            if message is None or entry is None:
                self._forget(subject)
                return False
            identity = secrets.token_hex(8)
            request = self._tombstone(
                subject,
                key,
                **{
                    EXPECTED: str(message.sequence),
                    "Nats-Msg-Id": identity,
                },
            )
            try:
                if (yield from self._decided(key, None, request, identity)) is not None:
                    return True
            except BucketFull:
                return (yield from self._make_room(subject, key, message.sequence))
            leader = self.replicated

    def discard(self, key: str) -> Steps[None]:
        """Remove a key, whether it had a value or not. One round trip."""
        for error in (yield from self.delete_many([key])).values():
            raise error

    def delete_many(
        self, keys: Iterable[str], revisions: Mapping[str, int] | None = None
    ) -> Steps[dict[str, NatsError]]:
        """Remove keys, pipelined; those that failed, with the reason.

        With revisions, a key goes only if it still has the revision given for it.
        """
        yield from self.ready()
        requests = {}
        for key in keys:
            conditions = {}
            if revisions is not None:
                conditions[EXPECTED] = str(revisions[key])
            requests[key] = self._tombstone(self._subject + self._encode(key), key, **conditions)
        failed = yield from self._publish_all(requests, {})
        for key, error in list(failed.items()):
            if isinstance(error, BucketFull):
                revision = None if revisions is None else revisions[key]
                yield from self._make_room(requests[key].subject.decode(), key, revision)
                del failed[key]
        return failed

    def clear(self) -> Steps[None]:
        """Remove every key of the bucket, and say so to whoever follows its changes.

        Not by a rollup of the whole stream: that stalls every read and write for a second or
        two at a million keys, where a purge takes a millisecond.
        """
        yield from self.ready()
        marker = self._tombstone(self._subject + key_names.CLEAR)
        upto = EVERYTHING
        try:
            yield from self._insist(Request(self.writes, self._purge), wire.parse_api)
            cleared = yield from self._insist(marker, wire.parse_ack, begun=True)
            upto = cleared.sequence
        finally:
            for copies in self._copies:
                copies.cleared(upto)
        if self.replicated:
            self.recent.note_cleared(cleared.sequence)

    def _insist(
        self, request: Request, parse: Callable[[Reply], T], *, begun: bool = False
    ) -> Steps[T]:
        """Repeat what may be repeated until it is acknowledged; not while nothing has begun."""
        deadline = monotonic() + self.config.request_timeout
        while True:
            try:
                return parse((yield from self.ask(request)))
            except Unavailable as error:
                begun = begun or isinstance(error, OutcomeUnknown)
                if not begun:
                    raise
                if monotonic() > deadline:
                    raise OutcomeUnknown(f"Only a part was done: {error}") from error
            yield Pause(chance.uniform(0.2, 1) * PATIENCE)

    def _tombstone(self, subject: str, key: str = "", **conditions: str) -> Request:
        if key_names.is_hashed(subject):
            conditions[wire.KEY_HEADER] = wire.quote_key(key)  # for whoever follows changes
        fields = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": TOMBSTONE_TTL}
        return Request(self.writes, subject, b"", wire.header_block({**fields, **conditions}))

    def _make_room(self, subject: str, key: str, revision: int | None) -> Steps[bool]:
        """Delete on a bucket too full for a tombstone: purge, and then announce it.

        With a revision, what was written after it stays: another's value, or its announcement.
        """
        what: dict[str, Any] = {"filter": subject}
        if revision is not None:
            what["seq"] = revision + 1
        request = Request(self.writes, self._purge, wire.compact_json(what))
        tombstone = self._tombstone(subject, key, **{EXPECTED: "0"})
        try:
            answer = wire.parse_api((yield from self.ask(request)))
            wire.parse_ack((yield from self.ask(tombstone)))
        except (BucketFull, WrongRevision):
            pass  # another writer took the room, or the key; the value is gone all the same
        finally:
            self._forget(subject)
        return bool(answer.get("purged", 0))
