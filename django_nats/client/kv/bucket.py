"""The operations on a bucket, each written once, as steps.

Values are bytes with a format token; the cache's codec knows what they mean. Keys are those that
Django makes. Expiry is exact: it goes by the server's clock, from the time at which the server
stored the value and the duration that the value carries. The server's own TTL, in whole seconds,
only sweeps.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ... import keys as key_names
from ...exceptions import (
    BucketFull,
    NatsError,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    Unavailable,
    ValueTooLarge,
    WrongRevision,
)
from ...realtime import monotonic
from ..protocol.server_errors import is_single
from ..protocol.steps import Pause, Request, Steps
from ..protocol.wire import Reply
from ..streams.clock import Clock
from ..streams.messages import Messages
from ..streams.opening import Opening
from ..streams.recent_writes import Recent
from ..streams.requests import begun
from ..streams.server import Server
from ..streams.stream import Stream
from .config import BucketConfig
from .entry import Entry, Write
from .full import REFUSALS, Fullness, unannounced
from .near_caches import NearCaches
from .payloads import Payload, PayloadAt
from .purging import Purges
from .reading import Reader
from .subjects import Subjects
from .tombstones import Tombstones
from .writing import EXPECTED, LONGEST_PAUSE_S, Writer, chance

if TYPE_CHECKING:
    from .copies import Copies

T = TypeVar("T")

MAX_ROUNDS = 1000
"""Tries of a change before it counts as one that never ends."""


class Bucket:
    """One bucket, as seen by this process: shared by threads, loops and aliases."""

    def __init__(
        self,
        config: BucketConfig,
        server: Server,
        recent: Recent | None = None,
        copies: Sequence[Copies] = (),
    ) -> None:
        self.config = config
        self.clock = Clock()
        self._fullness = Fullness(config)
        self._opening = Opening(
            config,
            server,
            recent or Recent(),
            clock=self.clock,
            on_open=self._learn,
            on_refusal=self._fullness.creation_error,
        )
        self.stream = Stream(self._opening)
        self._messages = Messages(self.stream, from_leader=config.reads == "leader")
        self._subjects = Subjects(config.name, config.api_prefix)
        self._near_caches = NearCaches(copies, self.clock)
        parts = (self.stream, self._messages, self._subjects, self._near_caches, self.clock)
        self._reader = Reader(*parts)
        self._writer = Writer(*parts, self._fullness)
        self._tombstones = Tombstones(self.stream, self._subjects)
        self._purges = Purges(self.stream, self._messages, self._near_caches, self._tombstones)
        # Of this process, for statistics: threads may overwrite each other's addition.
        self.hits = self.misses = 0

    def __repr__(self) -> str:
        return f"<Bucket {self.config.name}>"

    def _learn(self, document: Mapping[str, Any]) -> None:
        limit = document["config"].get("max_msg_size", -1)
        self._writer.max_message = limit if limit > 0 else self.config.max_value_size

    # Reading ---------------------------------------------------------------------------------

    def get(self, key: str) -> Steps[Entry | None]:
        """Return the entry of a key, or None. One round trip."""
        return self._reader.get(key)

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """Return the entries of those keys that have one. One round trip up to MAX_BATCH keys."""
        return self._reader.get_many(keys)

    def get_payload(self, key: str) -> Steps[PayloadAt | None]:
        """Return what ``get`` returns, without the time, in less time."""
        return self._reader.get_payload(key)

    def get_payloads(self, keys: Sequence[str]) -> Steps[dict[str, Payload]]:
        """Return what ``get_many`` returns, without revisions and times, in less time."""
        return self._reader.get_payloads(keys)

    def latest(self, key: str) -> Steps[tuple[int, Entry | None]]:
        """Return the sequence of a key's last message, 0 for none, and the entry it is, if any.

        A tombstone has a sequence, too. If there are replicas, the leader is asked.
        """
        yield from self._opening.ready()
        subject = self._subjects.of(key)
        message, entry = yield from self._reader.current(subject, leader=self._opening.replicated)
        return (0 if message is None else message.sequence), entry

    # Storing ---------------------------------------------------------------------------------

    def put(self, key: str, write: Write) -> Steps[int]:
        """Store a value and return its revision; discard the key if that is refused.

        Raises ValueTooLarge, BucketFull, PermissionDenied or another ServerError. Its message says
        so if the old value could not be discarded. The old value is kept while the stream is not
        served.
        """
        if not self._opening.is_ready:
            yield from self._opening.ready()
        try:
            return (yield from self._writer.store(key, write))
        except (ServerError, ValueTooLarge) as error:
            yield from self._discard_refused({key: error})
            raise

    def put_many(self, writes: Mapping[str, Write]) -> Steps[dict[str, NatsError]]:
        """Store many values, pipelined, and return the keys that failed, with the reason.

        The keys that were refused are discarded.
        """
        yield from self._opening.ready()
        failed = yield from self._writer.store_many(writes)
        yield from self._discard_refused(failed)
        return failed

    def _discard_refused(self, failed: Mapping[str, NatsError]) -> Steps[None]:
        """Discard the keys whose unconditional write a reachable server, or this client, refused.

        Otherwise readers would go on getting the value before it, and might write that back to
        where it came from. Adds to an error that the old value may still be readable.
        """
        refused = {key: error for key, error in failed.items() if _is_refusal(error)}
        if not refused:
            return
        kept: dict[str, NatsError] = {}
        purged: set[str] = set()
        # Where the server takes no values at the moment, it takes no tombstones either.
        away = (BucketFull, Unavailable)
        hidden = [key for key, error in refused.items() if isinstance(error, away)]
        others = [key for key, error in refused.items() if not isinstance(error, away)]
        try:
            if hidden:
                purged, kept = yield from self._purge(dict.fromkeys(hidden))
            if others:
                purged_too, kept_too = yield from self._delete_many(others)
                purged |= purged_too
                kept.update(kept_too)
        except NatsError as failure:
            purged, kept = set(), dict.fromkeys(refused, failure)
            for key in refused:
                self._near_caches.forget(self._subjects.of(key))
        for key, reason in kept.items():
            refusal = refused[key]
            consequence = (
                unannounced(reason)
                if key in purged
                else (
                    "Its old value may still be readable, since it could not be deleted either: "
                    f"{reason}"
                )
            )
            refusal.args = (f"{str(refusal).rstrip('.')}. {consequence}",)
            if isinstance(refusal, away):  # FAIL_OPEN hides them all
                self._fullness.note_kept(refusal)

    def add(self, key: str, write: Write) -> Steps[int | None]:
        """Store a value if the key has none. Return its revision, or None if the key has one."""
        return (yield from self.compare_and_set(key, write, 0))

    def compare_and_set(
        self,
        key: str,
        write: Write,
        revision: int,
        counts: Callable[[Entry], bool] = lambda entry: True,
    ) -> Steps[int | None]:
        """Store a value if the key's revision is the given one; 0 if it has no value.

        Return the new revision, or None if the key has changed. ``counts`` says, for revision 0,
        whether the entry of the key is a value.
        """
        yield from self._opening.ready()
        expected = revision
        while True:
            sequence = yield from self._writer.store_if(key, write, expected)
            if sequence is not None or revision:
                return sequence
            # A tombstone or an expired value is not a value: add over it.
            message = yield from self._messages.last(self._subjects.of(key), leader=True)
            entry = self._reader.entry(message)
            if entry is not None and counts(entry):
                return None
            expected = 0 if message is None else message.sequence

    def put_at(self, key: str, write: Write, sequence: int) -> Steps[int | None]:
        """Store a value if the key's last message has a sequence, as ``latest`` returns it.

        Return the new revision, or None if the key has changed. ``compare_and_set`` differs for 0:
        it stores a value over any tombstone.
        """
        if not self._opening.is_ready:
            yield from self._opening.ready()
        return (yield from self._writer.store_if(key, write, sequence))

    def change(
        self, key: str, decide: Callable[[Entry | None], Steps[tuple[Write | None, T]]]
    ) -> Steps[T]:
        """Read, decide and write if the key has not changed meanwhile; repeat until that holds.

        ``decide`` gets the entry, and says what to store (None: nothing) and what to return.
        Raises WrongRevision if that does not come to an end, as when ``decide`` itself writes the
        key.
        """
        yield from self._opening.ready()
        subject = self._subjects.of(key)
        leader = False
        for _ in range(MAX_ROUNDS):
            message, entry = yield from self._reader.current(subject, leader=leader)
            write, result = yield from decide(entry)
            if write is None:
                return result
            expected = 0 if message is None else message.sequence
            if (yield from self._writer.store_if(key, write, expected)) is not None:
                return result
            leader = self._opening.replicated  # a replica might go on answering with what lost
            yield Pause(chance.uniform(0, 0.003))
        raise WrongRevision(f"{key!r} was changed {MAX_ROUNDS} times while it was being changed")

    # Deleting --------------------------------------------------------------------------------

    def delete(self, key: str) -> Steps[bool]:
        """Delete a key. Return True if it had a value: of racing deletes, exactly one does.

        Raises the error because of which near caches of other processes may still have the value.
        """
        entry, unannounced_by = yield from self._remove(key)
        if unannounced_by is not None:
            raise unannounced_by
        return entry is not None

    def pop(self, key: str) -> Steps[Entry | None]:
        """Delete a key and return the entry it had: of racing deletes, exactly one gets it."""
        entry, _ = yield from self._remove(key)  # an error would lose the value
        return entry

    def _remove(self, key: str) -> Steps[tuple[Entry | None, NatsError | None]]:
        """Delete a key. Return the entry it had, and why that could not be announced."""
        yield from self._opening.ready()
        subject = self._subjects.of(key)
        leader = False
        while True:
            message, entry = yield from self._reader.current(subject, leader=leader)
            if message is None or entry is None:
                self._near_caches.forget(subject)
                return None, None
            deleted, unannounced_by = yield from self._delete_at(key, message.sequence)
            if deleted:
                return entry, unannounced_by
            leader = self._opening.replicated

    def _delete_at(self, key: str, revision: int) -> Steps[tuple[bool, NatsError | None]]:
        """Delete a key if it still has the revision.

        Return whether it had, and why its deletion could not be announced.
        """
        identity = secrets.token_hex(8)
        conditions = {EXPECTED: str(revision), "Nats-Msg-Id": identity}
        request = self._tombstones.request(self._subjects.of(key), key, **conditions)
        try:
            sequence = yield from self._writer.publish_if(key, None, request, identity)
            return sequence is not None, None
        except REFUSALS:
            pass
        purged, failed = yield from self._purge({key: revision})
        if key not in failed:
            return key in purged, None
        error = self._fullness.deletion_error(key, failed[key], is_purged=key in purged)
        if key not in purged:
            raise error
        return True, error

    def discard(self, key: str) -> Steps[None]:
        """Delete a key, whether it had a value or not. One round trip."""
        for error in (yield from self.delete_many([key])).values():
            raise error

    def delete_many(
        self, keys: Iterable[str], revisions: Mapping[str, int] | None = None
    ) -> Steps[dict[str, NatsError]]:
        """Delete keys, pipelined, and return those that failed, with the reason.

        With ``revisions``, a key is deleted only if it still has the revision given for it.
        """
        purged, failed = yield from self._delete_many(keys, revisions)
        fullness = self._fullness
        return {
            key: fullness.deletion_error(key, error, is_purged=key in purged)
            for key, error in failed.items()
        }

    def _delete_many(
        self, keys: Iterable[str], revisions: Mapping[str, int] | None = None
    ) -> Steps[tuple[set[str], dict[str, NatsError]]]:
        """Delete keys. Return those that had to be purged, and those that failed, as ``_purge``."""
        yield from self._opening.ready()
        keys = list(dict.fromkeys(keys))
        subjects = self._subjects.plain_to_publish(keys) if revisions is None else None
        if subjects is not None:
            tombstones = self._tombstones.publications(subjects)
            failed = yield from self._writer.publish_all(keys, tombstones, {})
        else:
            requests = []
            for key in keys:
                conditions = {} if revisions is None else {EXPECTED: str(revisions[key])}
                requests.append(self._tombstones.request(self._subjects.of(key), key, **conditions))
            failed = yield from self._writer.publish_each(keys, requests, {})
        refused = [key for key, error in failed.items() if isinstance(error, REFUSALS)]
        purged: set[str] = set()
        if refused:
            wanted = {key: None if revisions is None else revisions[key] for key in refused}
            purged, left = yield from begun(self._purge(wanted))
            failed = {key: error for key, error in failed.items() if key not in wanted} | left
        return purged, failed

    def _purge(
        self, revisions: Mapping[str, int | None]
    ) -> Steps[tuple[set[str], dict[str, NatsError]]]:
        """Delete keys of a bucket that takes no tombstones: see ``Purges.run``."""
        subjects = {key: self._subjects.of(key) for key in revisions}
        return self._purges.run(subjects, revisions)

    def clear(self) -> Steps[None]:
        """Delete every key of the bucket, and announce that on the change feed.

        Not by a rollup of the whole stream: that stalls every read and write for a second or two
        at a million keys, where a purge takes a millisecond.
        """
        yield from self._opening.ready()
        marker = self._tombstones.request(self._subjects.prefix + key_names.CLEAR)
        try:
            yield from self._insist(self._purges.request(), self._purges.count)
            acknowledged = self._messages.acknowledged
            cleared = yield from self._insist(marker, acknowledged, has_begun=True)
        finally:
            self._near_caches.forget_all()
        self.stream.recent.note_cleared(cleared.sequence)

    def _insist(
        self, request: Request, parse: Callable[[Reply], T], *, has_begun: bool = False
    ) -> Steps[T]:
        """Repeat a request until it is acknowledged, unless the operation has not begun yet."""
        deadline = monotonic() + self.config.request_timeout
        while True:
            try:
                return parse((yield from self.stream.ask(request)))
            except PermissionDenied:
                raise
            except Unavailable as error:
                has_begun = has_begun or isinstance(error, OutcomeUnknown)
                if not has_begun:
                    raise
                if monotonic() > deadline:
                    raise OutcomeUnknown(f"Only a part was done: {error}") from error
            yield Pause(chance.uniform(0.2, 1) * LONGEST_PAUSE_S)

    # The change feed -------------------------------------------------------------------------

    def heard(self, subject: str, revision: int) -> None:
        """Note a change that a feed has announced, so that no older copy is read after it."""
        self._near_caches.found(subject, revision)

    def missed(self) -> None:
        """Note that any key may have changed, so that no copy from before is read after it."""
        self._near_caches.forget_all()


def _is_refusal(error: NatsError) -> bool:
    """Return True if a write was refused, and not left without an answer."""
    if isinstance(error, Unavailable):
        return is_single(error) or isinstance(error, PermissionDenied)
    return isinstance(error, (ServerError, ValueTooLarge))
