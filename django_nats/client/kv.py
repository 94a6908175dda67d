"""The operations on a bucket, each written once, as steps.

Values are bytes with a format token; what they mean is the codec's business. Keys are Django's
made keys. Expiry is exact: judged by the server's clock, from the time the server stored the
value and the duration the value carries; the server's own TTL, in whole seconds, sweeps.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from random import SystemRandom
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import keys as key_names
from ..exceptions import (
    BucketFull,
    InvalidKey,
    NatsError,
    NotSent,
    OutcomeUnknown,
    ServerError,
    Unavailable,
    ValueTooLarge,
    WrongRevision,
)
from . import wire
from .bucket import BucketConfig
from .opening import CLOCK_REFRESH, Opening
from .steps import Pause, Request, Steps
from .wire import Message, Reply

T = TypeVar("T")

MAX_BATCH = 1024
"""Keys in one batch get; the server refuses more."""
MAX_BATCH_BYTES = 256 * 1024
MAX_BATCH_REPLY = 4 * 1024 * 1024
"""Bytes the server sends for one batch; its own bound is all that it lets a slow client fall
behind before it drops the connection."""
MAX_PIPELINE = 4096
MAX_PIPELINE_BYTES = 16 * 1024 * 1024
MAX_KEY_BYTES = 8192
TOMBSTONE_TTL = "60"
"""Seconds. Long, because a change feed that lags further than it would miss the delete."""
_RECENT_WRITES = 10_000
_PATIENCE = 0.05
# What no writer of ours stores, but anybody can, must not overflow in arithmetic.
_MOST = 10**16
_chance = SystemRandom()  # the random module's state is the user's


class Entry(NamedTuple):
    """A stored value: its bytes, its format token (None: another client's), its revision."""

    payload: bytes
    format: str | None
    revision: int
    expires: float | None
    """Seconds since 1970 on the server's clock; None for never."""


class Write(NamedTuple):
    """A value to be stored; seconds until it expires, or None for never."""

    payload: bytes
    format: str | None
    seconds: float | None
    expires: float | None = None
    """When it expires, as an Entry says it, where that stays as it was: seconds would begin anew
    with every write, and a value changed a thousand times a second would hardly age."""


class Server(Protocol):
    """What a bucket needs to know of its session."""

    epoch: int

    @property
    def max_payload(self) -> int: ...

    @property
    def server(self) -> str: ...


class Bucket(Opening):
    """One bucket, as seen by this process: shared by threads, loops and aliases."""

    def __init__(self, config: BucketConfig, server: Server) -> None:
        super().__init__(config, server)
        self._subject = f"$KV.{config.name}."
        self._direct = f"$JS.API.DIRECT.GET.{config.stream}"
        self._leader = f"$JS.API.STREAM.MSG.GET.{config.stream}"
        self._purge = f"$JS.API.STREAM.PURGE.{config.stream}"
        self._recent: dict[str, int] = {}
        # Of this process, for statistics: threads may overwrite each other's addition.
        self.hits = self.misses = 0

    # Reading ---------------------------------------------------------------------------------

    def get(self, key: str) -> Steps[Entry | None]:
        """The value of a key, or None. One round trip."""
        message = yield from self._last(self._subject + self._encode(key))
        return None if message is None else self._entry(message)

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """The values of those keys that have one. One round trip up to MAX_BATCH keys."""
        wanted = {self._subject + self._encode(key): key for key in keys}
        found: dict[str, Message | None] = {}
        if self._from_leader:
            requests = [self._leader_request(subject) for subject in wanted]
            for subject, reply in zip(wanted, (yield from self.pipeline(requests)), strict=True):
                found[subject] = wire.parse_leader(_raise(reply))
        else:
            yield from self._batch(list(wanted), found)
            for subject in wanted:
                message = found.get(subject)
                if self._is_stale(subject, message):
                    found[subject] = yield from self._ask_leader(subject)
        entries = {}
        for subject, message in found.items():
            entry = None if message is None else self._entry(message)
            if entry is not None:
                entries[wanted[subject]] = entry
        return entries

    def _batch(self, subjects: list[str], found: dict[str, Message | None]) -> Steps[None]:
        while subjects:
            requests = []
            for chunk in _chunks(subjects, min(MAX_BATCH_BYTES, self._server.max_payload // 4)):
                payload = wire.compact_json({"multi_last": chunk, "max_bytes": MAX_BATCH_REPLY})
                requests.append(Request(self.reads, self._direct, payload, gather=MAX_BATCH + 1))
            unfinished = False
            for replies in (yield from self.pipeline(requests)):
                for reply in _raise(replies):
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
        message = wire.parse_leader(reply)
        self._recent.pop(subject, None)
        return message

    def _is_stale(self, subject: str, message: Message | None) -> bool:
        """Whether a replica answered that has not seen this process's own write yet."""
        if not self._recent:
            return False
        own = self._recent.get(subject)
        return own is not None and (message is None or message.sequence < own)

    def _entry(self, message: Message) -> Entry | None:
        """A message as a value; None when it is a tombstone or has expired."""
        if message.deleted:
            return None
        stored, now = wire.epoch(message.stamp), self.now()
        if stored > now:  # the estimate is late: what has been read has been stored by now
            self._clock += stored - now
        format, expires = format_of(message.header, stored)
        if expires is not None:
            if expires <= now:
                return None
        elif format is None:
            ttl = wire.field(message.header, "Nats-TTL")
            if ttl is not None and ttl.isdecimal():
                expires = stored + min(int(ttl), wire.MAX_TTL_SECONDS)
        return Entry(message.payload, format, message.sequence, expires)

    # Writing ---------------------------------------------------------------------------------

    def put(self, key: str, write: Write) -> Steps[int]:
        """Store a value; its revision. Raises ValueTooLarge before anything is sent."""
        yield from self.ready()
        request = self._publish(key, write)
        try:
            ack = wire.parse_ack((yield from self.ask(request)))
        except BucketFull as error:
            raise self._full(key, error) from error
        self._remember(request.subject, ack.sequence)
        return ack.sequence

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
        failed.update((yield from self._publish_all(requests)))
        return failed

    def add(self, key: str, write: Write) -> Steps[int | None]:
        """Store a value if the key has none; its revision, or None when it has one."""
        return (yield from self.compare_and_set(key, write, 0))

    def compare_and_set(self, key: str, write: Write, revision: int) -> Steps[int | None]:
        """Store a value if the key's revision is the given one, 0 meaning that it has none.

        Returns the new revision, or None when the key has changed.
        """
        yield from self.ready()
        expected = revision
        while True:
            sequence = yield from self._publish_if(key, write, expected)
            if sequence is not None or revision:
                return sequence
            # A tombstone or an expired value is not a value: add over it.
            message = yield from self._last(self._subject + self._encode(key), leader=True)
            if message is not None and self._entry(message) is not None:
                return None
            expected = 0 if message is None else message.sequence

    def change(
        self, key: str, decide: Callable[[Entry | None], Steps[tuple[Write | None, T]]]
    ) -> Steps[T]:
        """Read, decide and write if nobody wrote meanwhile; again until that holds.

        ``decide`` says what to store (None: nothing) and what to return.
        """
        yield from self.ready()
        subject = self._subject + self._encode(key)
        leader = False
        while True:
            message = yield from self._last(subject, leader=leader)
            entry = None if message is None else self._entry(message)
            write, result = yield from decide(entry)
            if write is None:
                return result
            expected = 0 if message is None else message.sequence
            if (yield from self._publish_if(key, write, expected)) is not None:
                return result
            leader = self.replicated  # a replica might go on answering with what lost
            yield Pause(_chance.uniform(0, 0.003))

    def _publish(self, key: str, write: Write, **conditions: str) -> Request:
        subject_key = self._encode(key)
        # Another client's value keeps its lack of a format when it is given a new timeout.
        format = write.format or ""
        if write.expires is not None:
            format += f";at={round(write.expires * 1000)}"
        elif write.seconds is not None:
            format += f";ms={max(1, round(write.seconds * 1000))}"
        fields = {wire.FORMAT_HEADER: format} if format else {}
        fields["Nats-TTL"] = wire.ttl_field(write.seconds)
        if key_names.is_hashed(subject_key):
            fields[wire.KEY_HEADER] = wire.quote_key(key)
        header = wire.header_block({**fields, **conditions})
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
            **{"Nats-Expected-Last-Subject-Sequence": str(expected), "Nats-Msg-Id": identity},
        )
        try:
            return (yield from self._exactly_once(request, identity))
        except BucketFull as error:
            raise self._full(key, error) from error

    def _full(self, key: str, error: BucketFull) -> BucketFull:
        return BucketFull(
            f"{key!r} was not stored: the bucket {self.config.name} is full and does not evict. "
            f"Raise MAX_BYTES or MAX_ENTRIES, or set EVICT to True.",
            code=error.code,
            err_code=error.err_code,
        )

    def _exactly_once(self, request: Request, identity: str) -> Steps[int | None]:
        """Send a conditional write until its outcome is known; None when the condition failed.

        After an ambiguous failure the same id goes out again, so that the server recognises it;
        where it looks at the sequence first, the id of what is stored tells who won.
        """
        deadline = monotonic() + self.config.request_timeout
        ambiguous: OutcomeUnknown | None = None
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
                ambiguous = failure
            elif code == wire.SAME_ID_IN_FLIGHT:
                ambiguous = OutcomeUnknown(str(failure))
            elif isinstance(failure, WrongRevision) and code != wire.WRITE_IN_FLIGHT:
                if ambiguous is None:
                    return None
                return (yield from self._won(request, identity, ambiguous))
            elif code != wire.WRITE_IN_FLIGHT and (
                ambiguous is None or not isinstance(failure, Unavailable)
            ):
                raise failure
            if monotonic() > deadline:
                if ambiguous is None or ambiguous is failure:
                    raise failure
                raise ambiguous from failure
            yield Pause(_chance.uniform(0.2, 1) * _PATIENCE)

    def _won(self, request: Request, identity: str, ambiguous: OutcomeUnknown) -> Steps[int | None]:
        """The revision, if what is stored is what this request stored; None if another's."""
        try:
            stored = yield from self._last(request.subject.decode(), leader=True)
        except Unavailable as error:
            raise ambiguous from error
        if stored is None or wire.field(stored.header, "Nats-Msg-Id") != identity:
            return None
        return stored.sequence

    def _remember(self, subject: bytes, sequence: int) -> None:
        if self.replicated:
            recent = self._recent
            recent[subject.decode()] = sequence
            if len(recent) > _RECENT_WRITES:
                try:
                    recent.pop(next(iter(recent)), None)
                except RuntimeError:
                    pass  # another thread did, at the same moment

    # Deleting --------------------------------------------------------------------------------

    def delete(self, key: str) -> Steps[bool]:
        """Remove a key; whether it had a value. Of several racing deletes exactly one says so."""
        yield from self.ready()
        subject = self._subject + self._encode(key)
        leader = False
        while True:
            message = yield from self._last(subject, leader=leader)
            if message is None or self._entry(message) is None:
                return False
            identity = secrets.token_hex(8)
            request = self._tombstone(
                subject,
                **{
                    "Nats-Expected-Last-Subject-Sequence": str(message.sequence),
                    "Nats-Msg-Id": identity,
                },
            )
            try:
                if (yield from self._exactly_once(request, identity)) is not None:
                    return True
            except BucketFull:
                return (yield from self._make_room(subject, message.sequence))
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
                conditions["Nats-Expected-Last-Subject-Sequence"] = str(revisions[key])
            requests[key] = self._tombstone(self._subject + self._encode(key), **conditions)
        failed = yield from self._publish_all(requests)
        for key, error in list(failed.items()):
            if isinstance(error, BucketFull):
                revision = None if revisions is None else revisions[key]
                yield from self._make_room(requests[key].subject.decode(), revision)
                del failed[key]
        return failed

    def clear(self) -> Steps[None]:
        """Remove every key of the bucket, and say so to whoever follows its changes.

        Not by a rollup of the whole stream: that stalls every read and write for a second or
        two at a million keys, where a purge takes a millisecond.
        """
        yield from self.ready()
        wire.parse_api((yield from self.ask(Request(self.writes, self._purge))))
        marker = self._tombstone(self._subject + key_names.CLEAR)
        wire.parse_ack((yield from self.ask(marker)))
        self._recent.clear()

    def _tombstone(self, subject: str, **conditions: str) -> Request:
        fields = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": TOMBSTONE_TTL}
        return Request(self.writes, subject, b"", wire.header_block({**fields, **conditions}))

    def _make_room(self, subject: str, revision: int | None) -> Steps[bool]:
        """Delete on a bucket too full for a tombstone: purge, and then announce it.

        With a revision, what was written after it stays: another's value, or its announcement.
        """
        what: dict[str, Any] = {"filter": subject}
        if revision is not None:
            what["seq"] = revision + 1
        request = Request(self.writes, self._purge, wire.compact_json(what))
        answer = wire.parse_api((yield from self.ask(request)))
        tombstone = self._tombstone(subject, **{"Nats-Expected-Last-Subject-Sequence": "0"})
        try:
            wire.parse_ack((yield from self.ask(tombstone)))
        except (BucketFull, WrongRevision):
            pass  # another writer took the room, or the key; the value is gone all the same
        return bool(answer.get("purged", 0))

    # The wire --------------------------------------------------------------------------------

    def ask(self, request: Request) -> Steps[Reply]:
        """One request to an open bucket; opened again when it turns out to be gone."""
        yield from self.ready()
        if monotonic() > self._clock_due and self.writes.fault is None:
            reply = yield from self._ask_with_time(request)
        else:
            reply = yield request
        if wire.is_without_stream(reply):
            yield from self.open()
            reply = yield request
        return reply

    def _ask_with_time(self, request: Request) -> Steps[Reply]:
        """The request, and in the same write a question for the time on the server."""
        sent = monotonic()
        self._clock_due = sent + CLOCK_REFRESH
        reply, info = yield [request, self._info_request()]
        if isinstance(info, Reply):
            with suppress(ServerError):  # the stream may be gone: the request's own reply tells
                self._set_clock(info, sent)
        answer: Reply = _raise(reply)
        return answer

    def pipeline(self, requests: list[Request]) -> Steps[list[Any]]:
        """Many requests in as few writes as their size allows, each answered or failed."""
        yield from self.ready()
        answers: list[Any] = []
        for chunk in _by_size(requests):
            try:
                answers += yield chunk
            except NotSent as error:
                if not answers:
                    raise
                # Not so for the operation: what went before this chunk has been sent.
                unknown = OutcomeUnknown(f"Only a part was sent: {error}")
                unknown.__cause__ = error
                answers += [unknown] * len(chunk)
        gone = [index for index, answer in enumerate(answers) if _is_without_stream(answer)]
        if gone:
            yield from self.open()
            for index, answer in zip(gone, (yield [requests[i] for i in gone]), strict=True):
                answers[index] = answer
        return answers

    def _publish_all(self, requests: Mapping[str, Request]) -> Steps[dict[str, NatsError]]:
        failed: dict[str, NatsError] = {}
        answers = yield from self.pipeline(list(requests.values()))
        for (key, request), answer in zip(requests.items(), answers, strict=True):
            try:
                self._remember(request.subject, wire.parse_ack(_raise(answer)).sequence)
            except NatsError as error:
                failed[key] = error
        return failed

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


def format_of(header: bytes, stored: float) -> tuple[str | None, float | None]:
    """The format of a value stored at a time, and when it expires, in seconds since 1970."""
    format, _, lifetime = wire.format_field(header).partition(b";")
    unit, _, milliseconds = lifetime.partition(b"=")
    try:
        if not lifetime:
            return format.decode() or None, None
        expires = {b"ms": stored, b"at": 0.0}[unit] + min(int(milliseconds), _MOST) / 1000
        return format.decode() or None, min(expires, stored + wire.MAX_TTL_SECONDS)
    except (LookupError, ValueError):
        return "?", None  # nobody accepts it: a miss that is logged


def _raise(answer: Any) -> Any:
    if isinstance(answer, NatsError):
        raise answer
    return answer


def _is_without_stream(answer: Any) -> bool:
    if isinstance(answer, list):
        answer = answer[-1]
    return isinstance(answer, Reply) and wire.is_without_stream(answer)


def _chunks(subjects: list[str], most: int) -> Iterable[list[str]]:
    chunk: list[str] = []
    size = 0
    for subject in subjects:
        if len(chunk) == MAX_BATCH or size > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(subject)
        size += len(subject) + 3
    yield chunk


def _by_size(requests: list[Request]) -> Iterable[list[Request]]:
    chunk: list[Request] = []
    size = 0
    for request in requests:
        if len(chunk) == MAX_PIPELINE or size > MAX_PIPELINE_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += len(request.payload)
    if chunk:
        yield chunk
