"""Publishing values to a bucket: unconditionally, or if the key still has a revision."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar

from ... import keys
from ...exceptions import (
    NatsError,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    Unavailable,
    ValueTooLarge,
    WrongRevision,
)
from ...realtime import monotonic
from ..protocol import server_errors, wire
from ..protocol.steps import Pause, Publications, Request, Steps
from ..streams.clock import Clock
from ..streams.messages import Messages
from ..streams.requests import raise_error
from ..streams.stream import Stream
from .config import BucketConfig
from .entry import Write, headers_of
from .full import REFUSALS, Fullness
from .near_caches import NearCaches
from .subjects import Subjects

if TYPE_CHECKING:
    from .copies import Attempt, Copies

N = TypeVar("N", int, "int | None")

_NOT_READY = (server_errors.WRITE_IN_FLIGHT, server_errors.SEQUENCE_NOT_READY)
"""Errors after which a conditional write was not applied, and may succeed at once."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
LONGEST_PAUSE_S = 0.05
"""Between two tries of a write or a purge."""
chance = SystemRandom()  # the random module's state belongs to the user


class Writer:
    """Publishes values, and finds out how each write has ended."""

    def __init__(
        self,
        stream: Stream[BucketConfig],
        messages: Messages,
        subjects: Subjects,
        near_caches: NearCaches,
        clock: Clock,
        fullness: Fullness,
    ) -> None:
        self._stream = stream
        self._messages = messages
        self._subjects = subjects
        self._near_caches = near_caches
        self._clock = clock
        self._fullness = fullness
        self.max_message = stream.config.max_value_size
        """Bytes that the server takes for one value, headers included."""

    # Unconditional writes --------------------------------------------------------------------

    def store(self, key: str, write: Write) -> Steps[int]:
        """Store a value in an open bucket, and return its revision.

        Raises ValueTooLarge before anything is sent, and otherwise what the server refuses with.
        """
        request = self._request(key, write)
        if self._near_caches.copies:
            return (yield from self._and_copy(key, write, request, self._put(key, request)))
        return (yield from self._put(key, request))

    def _put(self, key: str, request: Request) -> Steps[int]:
        try:
            ack = self._messages.acknowledged((yield from self._stream.ask(request)))
        except REFUSALS as error:
            raise self._fullness.error(key, error) from error
        if self._fullness.is_full:
            self._fullness.note_stored()
        self._remember(request.subject, ack.sequence)
        return ack.sequence

    def _remember(self, published: bytes, sequence: int) -> None:
        self._messages.remember(self._subjects.stored(published), sequence)

    def store_many(self, writes: Mapping[str, Write]) -> Steps[dict[str, NatsError]]:
        """Store many values, pipelined, and return the keys that failed, with the reason."""
        failed: dict[str, NatsError] = {}
        plain = self._plain_publications(writes)
        if plain is not None:
            refused = yield from self.publish_all(list(writes), plain, writes)
        else:
            requests: dict[str, Request] = {}
            for key, write in writes.items():
                try:
                    requests[key] = self._request(key, write)
                except NatsError as error:
                    failed[key] = error
            refused = yield from self.publish_each(list(requests), list(requests.values()), writes)
        for key, refusal in refused.items():
            if isinstance(refusal, REFUSALS):
                refusal = self._fullness.error(key, refusal)
            failed[key] = refusal
        return failed

    def _plain_publications(self, writes: Mapping[str, Write]) -> Publications | None:
        """Return the messages that store these writes, all made together.

        Return None if a key must be looked at by itself: it may have no plain subject, or a value
        that is too large.
        """
        subjects = self._subjects.plain_to_publish(list(writes))
        if subjects is None:
            return None
        payloads = [write.payload for write in writes.values()]
        headers = headers_of(writes.values())
        made = self._stream.publications(subjects, payloads, headers)
        limit = min(self.max_message, self._stream.server.max_payload)
        return made if made.max_size <= limit else None

    def publish_each(
        self, keys: list[str], requests: list[Request], writes: Mapping[str, Write]
    ) -> Steps[dict[str, NatsError]]:
        """Send requests as ``publish_all`` does."""
        if not requests:
            return {}
        publications = self._stream.publications(
            [request.subject for request in requests],
            [request.payload for request in requests],
            [request.header for request in requests],
        )
        return (yield from self.publish_all(keys, publications, writes))

    def publish_all(
        self, keys: list[str], publications: Publications, writes: Mapping[str, Write]
    ) -> Steps[dict[str, NatsError]]:
        """Publish messages that store these writes, and that delete the keys without a write.

        Return the keys that failed, with the reason.
        """
        failed: dict[str, NatsError] = {}
        stored: Mapping[str, int] = {}
        attempts: dict[str, list[tuple[Copies, Attempt]]] = {}
        near_caches, messages = self._near_caches, self._messages
        if near_caches.copies:
            for key, published in zip(keys, publications.subjects, strict=True):
                subject = self._subjects.stored(published).decode()
                attempts[key] = near_caches.begin(key, subject)
        began = self._clock.now()
        try:
            answers = yield from self._stream.pipeline(publications)
            for index, answer in enumerate(answers):
                if type(answer) is not int:
                    try:
                        answers[index] = messages.acknowledged(raise_error(answer)).sequence
                    except NatsError as error:
                        failed[keys[index]] = error
            if failed or attempts or self._fullness.is_full:
                stored = self._note_stored(keys, publications, answers, failed, writes)
            else:
                subjects = self._subjects.all_stored(publications.subjects)
                self._stream.recent.note_many(subjects, answers)
        finally:
            for key, begun in attempts.items():
                near_caches.end_write(begun, writes.get(key), stored.get(key), began)
        return failed

    def _note_stored(
        self,
        keys: list[str],
        publications: Publications,
        answers: list[int],
        failed: Mapping[str, NatsError],
        writes: Mapping[str, Write],
    ) -> Mapping[str, int]:
        """Take note of what was stored, or deleted. Return its sequences by key."""
        stored: dict[str, int] = {}
        for key, published, sequence in zip(keys, publications.subjects, answers, strict=True):
            if key not in failed:
                stored[key] = sequence
                self._remember(published, sequence)
        if self._fullness.is_full and not stored.keys().isdisjoint(writes):
            self._fullness.note_stored()
        return stored

    # Conditional writes ----------------------------------------------------------------------

    def store_if(self, key: str, write: Write, expected: int) -> Steps[int | None]:
        """Store a value if the last message of the key has a sequence; 0 if it has no message.

        Return the new revision, or None if the key has changed.
        """
        identity = secrets.token_hex(8)
        conditions = f"{EXPECTED}: {expected}\r\nNats-Msg-Id: {identity}\r\n"
        request = self._request(key, write, conditions)
        try:
            sequence = yield from self.publish_if(key, write, request, identity)
        except REFUSALS as error:
            raise self._fullness.error(key, error) from error
        if sequence is not None and self._fullness.is_full:
            self._fullness.note_stored()
        return sequence

    def publish_if(
        self, key: str, write: Write | None, request: Request, identity: str
    ) -> Steps[int | None]:
        """Send a request with a condition and an id; ``write`` is None if it deletes the key.

        Return the new revision, or None if the condition failed.
        """
        steps = self._exactly_once(request, identity)
        if self._near_caches.copies:
            return (yield from self._and_copy(key, write, request, steps))
        return (yield from steps)

    def _exactly_once(self, request: Request, identity: str) -> Steps[int | None]:
        """Send a conditional write until its outcome is known; None if the condition failed.

        After an ambiguous failure the same id is sent again, so that the server recognises it.
        Where the server looks at the sequence first, the stored message tells who won. Raises
        OutcomeUnknown if that is not known, or if time is up.
        """
        deadline = monotonic() + self._stream.config.request_timeout
        doubt: OutcomeUnknown | None = None
        while True:
            failure: NatsError
            try:
                ack = self._messages.acknowledged((yield from self._stream.ask(request)))
            except (ServerError, Unavailable) as error:
                failure = error
            else:
                self._remember(request.subject, ack.sequence)
                return ack.sequence
            code = failure.err_code if isinstance(failure, ServerError) else 0
            if isinstance(failure, OutcomeUnknown):
                doubt = failure
            elif code == server_errors.SAME_ID_IN_FLIGHT:
                doubt = OutcomeUnknown(str(failure))
            elif code in _NOT_READY:
                pass
            elif isinstance(failure, WrongRevision):
                return None if doubt is None else (yield from self._won(request, identity, doubt))
            elif doubt is None or not isinstance(failure, Unavailable):
                raise failure
            elif isinstance(failure, PermissionDenied):
                raise doubt from failure
            if monotonic() > deadline:
                if doubt is None or doubt is failure:
                    raise failure
                raise doubt from failure
            yield Pause(chance.uniform(0.2, 1) * LONGEST_PAUSE_S)

    def _won(self, request: Request, identity: str, doubt: OutcomeUnknown) -> Steps[int | None]:
        """Return the revision if the stored message is this request's; None if it never was.

        Another write on the same base shows that this one was not applied. A write on a later base
        may have replaced this one: then nobody can tell, and the doubt is raised.
        """
        try:
            subject = self._subjects.stored(request.subject).decode()
            stored = yield from self._messages.last(subject, leader=True)
        except Unavailable as error:
            raise doubt from error
        if stored is not None and wire.field(stored.header, "Nats-Msg-Id") == identity:
            return stored.sequence
        base = wire.field(request.header, EXPECTED)
        if stored is not None and wire.field(stored.header, EXPECTED) == base:
            return None
        raise doubt

    # Both ------------------------------------------------------------------------------------

    def _and_copy(
        self, key: str, write: Write | None, request: Request, steps: Steps[N]
    ) -> Steps[N]:
        """Run the steps of a write, and pass their end to the near caches."""
        subject = self._subjects.stored(request.subject).decode()
        attempts = self._near_caches.begin(key, subject)
        began = self._clock.now()
        sequence: int | None = None
        try:
            outcome = yield from steps
            sequence = outcome
        finally:
            self._near_caches.end_write(attempts, write, sequence, began)
        return outcome

    def _request(self, key: str, write: Write, lines: str = "") -> Request:
        """Return the request that stores a value, with further lines in its header."""
        subject = self._subjects.of(key)
        if keys.is_hashed(subject):
            lines += f"{wire.KEY_HEADER}: {wire.quote_key(key)}\r\n"
        header = wire.extended(write.header, lines) if lines else write.header
        limit = min(self.max_message, self._stream.server.max_payload)
        if len(header) + len(write.payload) > limit:
            raise ValueTooLarge(
                f"The value of {key!r} has {len(write.payload)} bytes ({len(header)} more with its "
                f"headers); the bucket {self._stream.config.name} takes at most {limit}. Raise "
                f"MAX_VALUE_SIZE, and the server's max_payload, or configure a COMPRESSOR."
            )
        published = self._subjects.published(subject)
        return Request(self._stream.lanes.writes, published, write.payload, header)
