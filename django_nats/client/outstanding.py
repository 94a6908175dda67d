"""The requests that are on their way on one connection: their frames, and which reply is whose."""

from __future__ import annotations

import logging
import threading
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..exceptions import NatsError, NotSent, OutcomeUnknown, PermissionDenied, ValueTooLarge
from . import wire
from .faults import explain, without_frames
from .steps import Answer, Request
from .waiter import Waiter

logger = logging.getLogger("django_nats")

INBOX_SID = b"1"
_FIRST_TOKEN = 2  # tokens double as subscription ids, and 1 is taken


class Outstanding:
    """Who waits for which reply.

    Requests are answered on one subscription, each on a subject of its own, which is the key
    here; one with an inbox of its own goes by the id of that subscription. The lock guards all
    this, and the order of what is written; nobody holds it while waiting.
    """

    def __init__(self, unsubscribe: Callable[[bytes], None]) -> None:
        self.lock = threading.RLock()
        self.heard = monotonic()
        """When anything last came from the server."""
        self._unsubscribe = unsubscribe
        self._loops_thread = get_ident()
        self._waiting: dict[bytes, tuple[Waiter, int]] = {}
        self._listeners: dict[bytes, Callable[[wire.Reply], None]] = {}
        self._next_token = _FIRST_TOKEN
        self._inbox = b""
        self._longest = 0

    def __len__(self) -> int:
        """How many answers are still to come."""
        return len(self._waiting)

    def open(self, inbox: bytes) -> None:
        """Have answers come in on subjects that begin so."""
        self._inbox = inbox
        self._longest = wire.MAX_CONTROL_LINE - len(inbox) - 64

    def enlist(self, waiter: Waiter, frames: list[bytes], most: int) -> int:
        """Add the frames of a waiter's requests, each of at most so many bytes; their size.

        What cannot be sent fails alone: those beside it must not wait for ever.
        """
        before = len(frames)
        try:
            return self._enlist(waiter, frames, most)
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

    def _enlist(self, waiter: Waiter, frames: list[bytes], most: int) -> int:
        waiter.sent = now = monotonic()
        waiter.deadline = now + waiter.timeout
        inbox, longest, keys = self._inbox, self._longest, waiter.keys
        token, size = self._next_token, 0
        self._next_token += len(waiter.requests)
        for index, request in enumerate(waiter.requests, token):
            key = reply = b"%b%d" % (inbox, index)
            subject, header, payload = request.subject, request.header, request.payload
            keys.append(key)
            # The server drops a client for good that sends a larger frame or control line.
            if len(header) + len(payload) > most or len(subject) > longest:
                waiter.answer(index - token, _unfit(request, most, longest))
                continue
            if request.inbox:
                keys[-1] = key = b"%d" % index
                reply += b".pull"
                frames.append(b"SUB %b %b\r\n" % (reply, key))
            frame = wire.publish_frame(subject, reply, header, payload)
            frames.append(frame)
            size += len(frame)
            self._waiting[key] = (waiter, index - token)
        return size

    def _is_interruption(self, error: BaseException) -> bool:
        # A signal's handler may raise anything, but on the loop's thread there is none; a bug
        # shows itself as a TypeError on either.
        return get_ident() != self._loops_thread and not isinstance(error, TypeError)

    def take(self, sid: bytes, reply: wire.Reply) -> None:
        """Hand a reply to who waits for it.

        Raises only what interrupts a caller: by a bug the rest must not be lost.
        """
        key = reply.subject if sid == INBOX_SID else sid
        waiting = self._waiting.get(key)
        if waiting is None:
            self._tell(sid, reply)  # unless its caller has given up
            return
        waiter, index = waiting
        waiter.deadline = self.heard + waiter.timeout
        try:
            answer: Answer = reply
            request = waiter.requests[index]
            if request.gather:
                gathered = waiter.gather(index, reply, request.gather)
                if gathered is None:
                    return
                answer = gathered
                if request.inbox:
                    self._unsubscribe(key)
            del self._waiting[key]
            waiter.answer(index, answer)
        except BaseException as error:
            # It may have been taken out already: then nobody else would ever tell who waits.
            self.forget(waiter)
            with suppress(Exception):  # a lock's, that has been released already
                waiter.fail(OutcomeUnknown("The answer has come, and could not be handled"))
            if self._is_interruption(error):
                raise
            logger.exception("django-nats could not handle a reply")

    def listen(self, hear: Callable[[wire.Reply], None]) -> tuple[bytes, bytes]:
        """Have a function called for all that comes in on a subject of its own, under the lock and
        on any thread; the subscription's id, and the subject."""
        with self.lock:
            token, self._next_token = self._next_token, self._next_token + 1
            sid = b"%d" % token
            self._listeners[sid] = hear
        return sid, b"%b%d.feed" % (self._inbox, token)

    def unlisten(self, sid: bytes) -> None:
        with self.lock:
            self._listeners.pop(sid, None)

    def _tell(self, sid: bytes, reply: wire.Reply) -> None:
        hear = self._listeners.get(sid)
        if hear is not None:
            try:
                hear(reply)
            except Exception as error:
                if self._is_interruption(error):
                    raise
                logger.exception("django-nats could not handle a message of a change feed")

    def forget(self, waiter: Waiter) -> None:
        """Wait no longer for a waiter's replies."""
        with self.lock:
            for key, request in zip(waiter.keys, waiter.requests, strict=False):
                if self._waiting.pop(key, None) is not None and request.inbox:
                    self._unsubscribe(key)

    def waiters(self) -> set[Waiter]:
        with self.lock:
            return {waiter for waiter, _ in self._waiting.values()}

    def drain(self) -> set[Waiter]:
        """Everyone who waits; nobody does any more."""
        with self.lock:
            waiters = self.waiters()
            self._waiting.clear()
            return waiters

    def refuse(self, message: str) -> None:
        """Fail the requests whose subject the server has named as not permitted."""
        with self.lock:
            for key, (waiter, index) in list(self._waiting.items()):
                subject = waiter.requests[index].subject.decode()
                if f'"{subject.lower()}"' in message:
                    del self._waiting[key]
                    waiter.answer(index, PermissionDenied(f"No permission to publish to {subject}"))


def _unfit(request: Request, most: int, longest: int) -> NatsError:
    if len(request.subject) > longest:
        return ValueTooLarge(f"The subject has {len(request.subject)} bytes, which is too long")
    size = len(request.header) + len(request.payload)
    return ValueTooLarge(
        f"The message for {request.subject.decode()} has {size} bytes with its headers; "
        f"the server takes at most {most} (max_payload)"
    )
