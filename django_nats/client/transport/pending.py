"""The outstanding requests of one connection: their frames, and which reply answers which."""

from __future__ import annotations

import logging
import os
import threading
from _thread import get_ident
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import repeat, takewhile
from struct import Struct

from ...exceptions import (
    NatsError,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    UnexpectedReply,
    ValueTooLarge,
)
from ...realtime import monotonic
from ..protocol import wire
from ..protocol.runs import ReadRun, RunReader, read_acknowledgements
from ..protocol.steps import Answer, Publications, Request
from .driver_errors import explain, without_frames, without_key
from .subscriptions import Subscriptions
from .waiter import Waiter

logger = logging.getLogger("django_nats")

INBOX_SID = b"1"
_TOKENS = Struct("12s" * 256)
"""The tokens that are made at once: 256 of 12 characters, with 6 random bits in each."""


class Outstanding:
    """The requests that wait for replies.

    All replies come in on one subscription, the inbox, each on a subject of its own. That subject
    is the key of its request. A request with an inbox of its own has the id of that subscription
    as its key.

    The subjects cannot be guessed. Otherwise a user of the account could predict the next subject
    and publish an answer in the server's place.

    The lock protects all this, the other subscriptions, and the order of what is written. No
    thread waits for anything while it holds the lock.
    """

    def __init__(self, unsubscribe: Callable[[bytes], None]) -> None:
        """Make it empty. ``unsubscribe`` gets the id of a subscription that is over."""
        self.lock = threading.RLock()
        self.received_at = monotonic()
        """When anything last came from the server, on the monotonic clock."""
        self.answered_at = 0.0
        """When a message last came in on the inbox, on the monotonic clock."""
        self.max_reply_bytes = 0
        """Size that one reply may have, headers included."""
        self._unsubscribe = unsubscribe
        self._loop_thread_id = get_ident()
        self.subscriptions = Subscriptions(self.lock, unsubscribe, self._is_interruption)
        """Those that are not for replies. They get what answers no request."""
        self._waiting: dict[bytes, tuple[Waiter, int]] = {}
        self._tokens: list[bytes] = []
        """Unused random parts of the subjects for replies."""
        self._inbox = b""
        self._max_subject_bytes = 0

    def __len__(self) -> int:
        """Return how many answers are missing."""
        return len(self._waiting)

    def open(self, inbox: bytes) -> None:
        """Set the prefix of the subjects for replies, and of those of change feeds."""
        self._inbox = self.subscriptions.inbox = inbox
        self._max_subject_bytes = wire.MAX_CONTROL_LINE_BYTES - len(inbox) - 64

    def enlist(self, waiter: Waiter, frames: list[bytes], max_payload: int) -> int:
        """Add the frames of a waiter's requests to a list, and return their size in bytes.

        A request that cannot be sent fails by itself, for example as it has more than
        ``max_payload`` bytes. It does not affect the requests beside it.
        """
        before = len(frames)
        try:
            return self._enlist(waiter, frames, max_payload)
        except Exception as error:
            if self._is_interruption(error):
                raise
            del frames[before:]
            for key in waiter.keys:
                self._waiting.pop(key, None)
            failure = NotSent(f"The request cannot be sent: {explain(error)}")
            failure.__cause__ = without_frames(error)
            waiter.fail(failure)
            return 0

    def _enlist(self, waiter: Waiter, frames: list[bytes], max_payload: int) -> int:
        waiter.sent = now = monotonic()
        waiter.deadline = now + waiter.timeout
        inbox, max_subject_bytes, keys = self._inbox, self._max_subject_bytes, waiter.keys
        requests = waiter.requests
        if type(requests) is Publications:
            longest = max(map(len, requests.subjects))
            if requests.max_size <= max_payload and longest <= max_subject_bytes:
                return self._enlist_publications(waiter, requests, frames)
        size = 0
        tokens = self._tokens
        for index, request in enumerate(requests):
            token = tokens.pop() if tokens else self._new_token()
            key = reply = inbox + token
            subject, header, payload = request.subject, request.header, request.payload
            keys.append(key)
            # The server closes the connection after a larger frame or control line.
            if len(header) + len(payload) > max_payload or len(subject) > max_subject_bytes:
                waiter.answer(index, _oversized(request, max_payload, max_subject_bytes))
                continue
            if request.follow is not None:
                self.subscriptions.follow(request.follow, frames)
            if request.inbox:
                keys[-1] = key = token  # the token is the id of the subscription, too
                reply += b".pull"
                frames.append(b"SUB %b %b\r\n" % (reply, key))
            frame = wire.publish_frame(subject, reply, header, payload)
            frames.append(frame)
            size += len(frame)
            self._waiting[key] = (waiter, index)
        return size

    def _enlist_publications(
        self, waiter: Waiter, publications: Publications, frames: list[bytes]
    ) -> int:
        count, tokens, inbox = len(publications), self._tokens, self._inbox
        # One by one: a finalizer that runs in between may send a request, and take a token, too.
        keys = [inbox + (tokens.pop() if tokens else self._new_token()) for _ in range(count)]
        waiter.keys = keys
        added = wire.publish_frames(
            publications.subjects, keys, publications.headers, publications.payloads
        )
        frames += added
        self._waiting.update(zip(keys, zip(repeat(waiter), range(count)), strict=False))
        return sum(map(len, added))

    def _new_token(self) -> bytes:
        """Return a random token. Make many at once, as making them singly would cost more."""
        text = urlsafe_b64encode(os.urandom(_TOKENS.size * 6 // 8))
        self._tokens.extend(_TOKENS.unpack(text))
        return self._tokens.pop()

    def _is_interruption(self, error: BaseException) -> bool:
        # A signal's handler may raise anything, but never on the loop's thread. A TypeError is
        # taken for a mistake in the code on any thread.
        return get_ident() != self._loop_thread_id and not isinstance(error, TypeError)

    def take(self, sid: bytes, reply: wire.Reply) -> ReadRun | None:
        """Pass a reply to the waiter or the subscription that it belongs to.

        Return a function that can read many of the further replies at once, if there is one.
        Raise only what a signal's handler raised. An error in the code is logged, so that the
        messages behind this one are not lost.
        """
        if sid == INBOX_SID:
            key, self.answered_at = reply.subject, self.received_at
        else:
            key = sid
        waiting = self._waiting.get(key)
        if waiting is None:
            self.subscriptions.notify(sid, reply)  # or the caller has stopped waiting
            return None
        waiter, index = waiting
        waiter.deadline = self.received_at + waiter.timeout
        try:
            answer: Answer = reply
            requests = waiter.requests
            if type(requests) is Publications:
                return self._take_acknowledgement(waiter, index, requests.stream, reply)
            request = requests[index]
            if request.gather:
                gathered = waiter.gather(index, reply, request.gather, self.max_reply_bytes)
                if gathered is None:
                    reader = request.reader
                    if reader is None:
                        return None
                    return partial(self._read_run, waiter, reader, reply.subject, sid)
                answer = gathered
                if request.inbox:
                    self._unsubscribe(key)
            del self._waiting[key]
            waiter.answer(index, answer)
        except BaseException as error:
            if self._give_up(waiter, error):
                raise
        return None

    def _read_run(
        self,
        waiter: Waiter,
        reader: RunReader,
        subject: bytes,
        sid: bytes,
        data: bytes,
        start: int,
    ) -> int:
        """Let a request's reader read on. An error in it fails the request, as in take()."""
        try:
            return reader.read_run(data, start, subject, sid)
        except BaseException as error:
            if self._give_up(waiter, error):
                raise
        return start

    def _give_up(self, waiter: Waiter, error: BaseException) -> bool:
        """Fail a waiter whose answer could not be handled. Return True if the error is not ours."""
        # The waiter may have left the table, so that nothing else would ever wake its caller.
        self.forget(waiter)
        with suppress(Exception):  # wake() raises if the lock has been released already
            waiter.fail(OutcomeUnknown("The answer arrived, but could not be handled"))
        if self._is_interruption(error):
            return True
        logger.error("django-nats could not handle a reply", exc_info=error)
        return False

    def _take_acknowledgement(
        self, waiter: Waiter, index: int, stream: bytes, reply: wire.Reply
    ) -> ReadRun | None:
        sequence = wire.plain_ack(reply.payload, stream)
        del self._waiting[waiter.keys[index]]
        waiter.answer(index, sequence or reply)
        if sequence and waiter.unanswered:
            before = reply.payload
            return partial(self._read_acknowledgements, waiter, index + 1, before, sequence)
        return None

    def _read_acknowledgements(
        self, waiter: Waiter, index: int, before: bytes, sequence: int, data: bytes, start: int
    ) -> int:
        """Read the acknowledgements of a waiter's next messages, as far as they look like one.

        Return the position behind them in the bytes.
        """
        try:
            waiting = self._waiting
            most = (len(data) - start) // len(before)
            keys = waiter.keys[index : index + most]
            subjects = takewhile(waiting.__contains__, keys)
            sequences, end = read_acknowledgements(
                data, start, subjects, INBOX_SID, before, sequence
            )
            if sequences:
                for key in keys[: len(sequences)]:
                    del waiting[key]
                waiter.answer_many(index, sequences)
            return end
        except BaseException as error:
            if self._give_up(waiter, error):
                raise
        return start

    def refuse_large(self, sid: bytes, subject: bytes, size: int) -> None:
        """Fail the request whose reply is too large to be kept. ``size`` is in bytes."""
        key = subject if sid == INBOX_SID else sid
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            self.subscriptions.notify_of_loss(sid)
            return
        waiter, index = waiting
        if waiter.requests[index].inbox:
            self._unsubscribe(key)
        waiter.answer(index, _too_large(size, self.max_reply_bytes))

    def interrupt(self, sid: bytes, subject: bytes) -> None:
        """Handle the loss of a message, as a signal's handler raised while it was handled.

        Fail the request that it may have answered, or end the feed that it may have belonged to.
        """
        with self.lock:
            waiting = self._waiting.get(subject if sid == INBOX_SID else sid)
            if waiting is None:
                self.subscriptions.notify_of_loss(sid)
            else:
                self.forget(waiting[0])
                waiting[0].fail(OutcomeUnknown("The answer arrived, but could not be handled"))

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting for a waiter's replies."""
        with self.lock:
            for key, request in zip(waiter.keys, waiter.requests, strict=False):
                if self._waiting.pop(key, None) is not None and request.inbox:
                    self._unsubscribe(key)

    def waiters(self) -> set[Waiter]:
        """Return all waiters that wait for a reply."""
        with self.lock:
            return {waiter for waiter, _ in self._waiting.values()}

    def drain(self) -> set[Waiter]:
        """Remove and return all waiters."""
        with self.lock:
            waiters = self.waiters()
            self._waiting.clear()
            return waiters

    def refuse(self, message: str) -> None:
        """Fail the requests whose subjects the server has refused for lack of permission.

        ``message`` is the server's error in lower case, which names the subject.
        """
        with self.lock:
            for key, (waiter, index) in list(self._waiting.items()):
                request = waiter.requests[index]
                subject = request.subject.decode()
                if f'"{subject.lower()}"' in message:
                    problem = f"No permission to publish to {without_key(subject)}"
                elif request.inbox and '.pull"' in message:
                    problem = f"No permission to subscribe to {self._inbox.decode()}*.pull"
                else:
                    continue
                self._refuse(key, PermissionDenied(problem))

    def with_inboxes(self) -> list[bytes]:
        """Return the keys of the waiting requests that have an inbox of their own."""
        with self.lock:
            waiting = self._waiting.items()
            return [key for key, (waiter, index) in waiting if waiter.requests[index].inbox]

    def refuse_keys(self, keys: Iterable[bytes], error: NatsError) -> None:
        """Fail those of the requests with these keys that are still waiting."""
        with self.lock:
            for key in keys:
                if key in self._waiting:
                    self._refuse(key, error)

    def _refuse(self, key: bytes, error: NatsError) -> None:
        """Fail a request, and end the subscription of its own that it may have."""
        waiter, index = self._waiting.pop(key)
        if waiter.requests[index].inbox:  # the server may have accepted the subscription
            self._unsubscribe(key)
        waiter.answer(index, error)


def _too_large(size: int, max_bytes: int) -> UnexpectedReply:
    return UnexpectedReply(
        f"The server announced a message of {size} bytes; by its max_payload the limit is "
        f"{max_bytes}"
    )


def _oversized(request: Request, max_payload: int, max_subject_bytes: int) -> NatsError:
    if len(request.subject) > max_subject_bytes:
        return ValueTooLarge(f"The subject has {len(request.subject)} bytes, which is too long")
    size = len(request.header) + len(request.payload)
    subject = without_key(request.subject.decode())
    return ValueTooLarge(
        f"The message for {subject} has {size} bytes with its headers; "
        f"the server takes at most {max_payload} (max_payload)"
    )
