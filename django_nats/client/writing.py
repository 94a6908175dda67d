"""Writing to a bucket: unconditionally, or if nobody else has written meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from .. import keys as key_names
from ..exceptions import (
    BucketFull,
    NatsError,
    OutcomeUnknown,
    ServerError,
    Unavailable,
    ValueTooLarge,
    WrongRevision,
)
from . import wire
from .entry import Entry, Write
from .exchange import raise_error
from .reading import Reading, logger
from .steps import Pause, Request, Steps
from .wire import Message

if TYPE_CHECKING:
    from .copies import Attempt, Copies

T = TypeVar("T")
N = TypeVar("N", int, "int | None")

MAX_ROUNDS = 1000
"""Attempts at a change before it counts as one that never ends."""
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
PATIENCE = 0.05
chance = SystemRandom()  # the random module's state is the user's


class Writing(Reading):
    """The part of a bucket that stores values, and knows how a write has ended."""

    def put(self, key: str, write: Write) -> Steps[int]:
        """Store a value; its revision. Raises ValueTooLarge before anything is sent."""
        if not self.is_ready:
            yield from self.ready()
        request = self._publish(key, write)
        if self._copies:
            return (yield from self._and_tell(key, write, request, self._put(key, request)))
        return (yield from self._put(key, request))

    def _put(self, key: str, request: Request) -> Steps[int]:
        try:
            ack = wire.parse_ack((yield from self.ask(request)))
        except BucketFull as error:
            raise self._full(key, error) from error
        self._remember(request.subject, ack.sequence)
        return ack.sequence

    def _and_tell(
        self, key: str, write: Write | None, request: Request, steps: Steps[N]
    ) -> Steps[N]:
        """A write, with those who keep copies told how it ends: by its sequence, or in doubt."""
        attempts = self._begin(key, request.subject.decode())
        began = self.now()
        sequence: int | None = None
        try:
            outcome = yield from steps
            sequence = outcome
        finally:
            self._tell(attempts, write, sequence, began)
        return outcome

    def put_many(self, writes: Mapping[str, Write]) -> Steps[dict[str, NatsError]]:
        """Store many values, pipelined; the keys that failed, with the reason."""
        yield from self.ready()
        failed: dict[str, NatsError] = {}
        requests: dict[str, Request] = {}
        for key, write in writes.items():
            try:
                requests[key] = self._publish(key, write)
            except NatsError as error:
                failed[key] = error
        failed.update((yield from self._publish_all(requests, writes)))
        return failed

    def add(self, key: str, write: Write) -> Steps[int | None]:
        """Store a value if the key has none; its revision, or None when it has one."""
        return (yield from self.compare_and_set(key, write, 0))

    def compare_and_set(
        self,
        key: str,
        write: Write,
        revision: int,
        counts: Callable[[Entry], bool] = lambda entry: True,
    ) -> Steps[int | None]:
        """Store a value if the key's revision is the given one, 0 meaning that it has none.

        Returns the new revision, or None when the key has changed. ``counts`` says, for
        revision 0, whether what the key has is a value.
        """
        yield from self.ready()
        expected = revision
        while True:
            sequence = yield from self._publish_if(key, write, expected)
            if sequence is not None or revision:
                return sequence
            # A tombstone or an expired value is not a value: add over it.
            message = yield from self._last(self._subject + self._encode(key), leader=True)
            entry = None if message is None else self._entry(message)
            if entry is not None and counts(entry):
                return None
            expected = 0 if message is None else message.sequence

    def change(
        self, key: str, decide: Callable[[Entry | None], Steps[tuple[Write | None, T]]]
    ) -> Steps[T]:
        """Read, decide and write if nobody wrote meanwhile; again until that holds.

        ``decide`` says what to store (None: nothing) and what to return. Raises WrongRevision
        when it does not come to an end, as when deciding itself writes the key.
        """
        yield from self.ready()
        subject = self._subject + self._encode(key)
        leader = False
        for _ in range(MAX_ROUNDS):
            message, entry = yield from self._current(subject, leader=leader)
            write, result = yield from decide(entry)
            if write is None:
                return result
            expected = 0 if message is None else message.sequence
            if (yield from self._publish_if(key, write, expected)) is not None:
                return result
            leader = self.replicated  # a replica might go on answering with what lost
            yield Pause(chance.uniform(0, 0.003))
        raise WrongRevision(f"{key!r} was changed {MAX_ROUNDS} times while it was being changed")

    def _current(self, subject: str, *, leader: bool) -> Steps[tuple[Message | None, Entry | None]]:
        """The last message, and the value it is; that there is none is for the leader to say."""
        message = yield from self._last(subject, leader=leader)
        entry = None if message is None else self._entry(message)
        if entry is None and self.replicated and not leader:
            return (yield from self._current(subject, leader=True))
        if entry is None:
            self._forget(subject)
        else:
            self.heard(subject, entry.revision)
        return message, entry

    def _publish(self, key: str, write: Write, **conditions: str) -> Request:
        subject_key = self._encode(key)
        hashed = key_names.is_hashed(subject_key)
        if conditions or hashed:
            fields = {**write.fields(), **conditions}
            if hashed:
                fields[wire.KEY_HEADER] = wire.quote_key(key)
            header = wire.header_block(fields)
        else:
            header = write.header
        limit = min(self.max_message, self._server.max_payload)
        if len(header) + len(write.payload) > limit:
            raise ValueTooLarge(
                f"The value of {key!r} has {len(write.payload)} bytes ({len(header)} more with "
                f"its headers); the bucket {self.config.name} takes at most {limit}. Raise "
                f"MAX_VALUE_SIZE, and the server's max_payload, or configure a COMPRESSOR."
            )
        return Request(self.writes, self._subject + subject_key, write.payload, header)

    def _publish_if(self, key: str, write: Write, expected: int) -> Steps[int | None]:
        identity = secrets.token_hex(8)
        request = self._publish(
            key,
            write,
            **{EXPECTED: str(expected), "Nats-Msg-Id": identity},
        )
        try:
            return (yield from self._decided(key, write, request, identity))
        except BucketFull as error:
            raise self._full(key, error) from error

    def _decided(
        self, key: str, write: Write | None, request: Request, identity: str
    ) -> Steps[int | None]:
        steps = self._exactly_once(request, identity)
        return (yield from self._and_tell(key, write, request, steps) if self._copies else steps)

    def _full(self, key: str, error: BucketFull) -> BucketFull:
        """The error for a key; the first of a row is logged, since FAIL_OPEN hides them all."""
        if not self._said_full:
            self._said_full = True
            logger.warning("The bucket %s is full: %s", self.config.name, error)
        return BucketFull(
            f"{key!r} was not stored: the bucket {self.config.name} is full and does not evict. "
            f"Raise MAX_BYTES or MAX_ENTRIES, or set EVICT to True.",
            code=error.code,
            err_code=error.err_code,
        )

    def _exactly_once(self, request: Request, identity: str) -> Steps[int | None]:
        """Send a conditional write until its outcome is known; None when the condition failed.

        After an ambiguous failure the same id goes out again, so that the server recognises it;
        where it looks at the sequence first, what is stored tells who won. Raises OutcomeUnknown
        when that cannot be told, or when time is up.
        """
        deadline = monotonic() + self.config.request_timeout
        doubt: OutcomeUnknown | None = None
        while True:
            failure: NatsError
            try:
                ack = wire.parse_ack((yield from self.ask(request)))
            except (ServerError, Unavailable) as error:
                failure = error
            else:
                self._remember(request.subject, ack.sequence)
                return ack.sequence
            code = failure.err_code if isinstance(failure, ServerError) else 0
            if isinstance(failure, OutcomeUnknown):
                doubt = failure
            elif code == wire.SAME_ID_IN_FLIGHT:
                doubt = OutcomeUnknown(str(failure))
            elif code == wire.WRITE_IN_FLIGHT:
                pass
            elif isinstance(failure, WrongRevision):
                return None if doubt is None else (yield from self._won(request, identity, doubt))
            elif doubt is None or not isinstance(failure, Unavailable):
                raise failure
            if monotonic() > deadline:
                if doubt is None or doubt is failure:
                    raise failure
                raise doubt from failure
            yield Pause(chance.uniform(0.2, 1) * PATIENCE)

    def _won(self, request: Request, identity: str, doubt: OutcomeUnknown) -> Steps[int | None]:
        """The revision, if this request's write is what is stored; None if it never was.

        Another's write on the same base shows that ours was not applied. One on a later base may
        stand on ours: then nobody can tell.
        """
        try:
            stored = yield from self._last(request.subject.decode(), leader=True)
        except Unavailable as error:
            raise doubt from error
        if stored is not None and wire.field(stored.header, "Nats-Msg-Id") == identity:
            return stored.sequence
        base = wire.field(request.header, EXPECTED)
        if stored is not None and wire.field(stored.header, EXPECTED) == base:
            return None
        raise doubt

    def _publish_all(
        self, requests: Mapping[str, Request], writes: Mapping[str, Write]
    ) -> Steps[dict[str, NatsError]]:
        """Send what stores these writes, or deletes the keys that have none; those that failed."""
        failed: dict[str, NatsError] = {}
        stored: dict[str, int] = {}
        attempts: dict[str, list[tuple[Copies, Attempt]]] = {}
        if self._copies:
            attempts = {key: self._begin(key, requests[key].subject.decode()) for key in requests}
        began = self.now()
        try:
            answers = yield from self.pipeline(list(requests.values()))
            for (key, request), answer in zip(requests.items(), answers, strict=True):
                try:
                    stored[key] = wire.parse_ack(raise_error(answer)).sequence
                    self._remember(request.subject, stored[key])
                except NatsError as error:
                    failed[key] = error
        finally:
            for key, told in attempts.items():
                self._tell(told, writes.get(key), stored.get(key), began)
        return failed

    def _tell(
        self,
        told: list[tuple[Copies, Attempt]],
        write: Write | None,
        sequence: int | None,
        began: float,
    ) -> None:
        """How a write that began at some time ended: acknowledged at a sequence, or in doubt."""
        for copies, attempt in told:
            if sequence is None:
                copies.end_in_doubt(attempt)
            else:
                entry = None if write is None else write.stored(sequence, began)
                copies.end_write(attempt, entry, sequence, self._clock)

    def _forget(self, subject: str) -> None:
        """Tell those who keep copies of a key that it has changed, or been found changed."""
        for copies in self._copies:
            copies.forget(subject)
