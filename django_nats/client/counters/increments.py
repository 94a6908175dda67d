"""Changes of counters, each counted exactly once, although servers and connections may fail.

Each increment carries an id that the server remembers for three DEADLINEs. An increment that may
have been applied is sent again with the same id, until the server acknowledges it as new or as a
duplicate. A server that restarts finds the ids again in the messages it has stored. After a restart
of a lone server, an increment that is sent again is therefore recognised only while fewer than
HISTORY later increments of the same counter came between. Hence, within this process, increments
whose outcome is unknown go before new ones. A server that was stopped for longer than it remembers
ids may still pass on what others have applied meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from itertools import count
from random import SystemRandom
from typing import NamedTuple, TypeVar

from ...exceptions import (
    CounterUnavailable,
    NatsError,
    NotSent,
    OutcomeUnknown,
    ReadOnlyCounter,
    ServerError,
    Unavailable,
    UnexpectedReply,
    Unreadable,
    ValueTooLarge,
)
from ...realtime import monotonic
from ..protocol import documents, wire
from ..protocol.steps import Pause, Request, Steps
from ..protocol.wire import Ack, Reply
from ..streams.api import mismatch
from ..streams.messages import Messages
from ..streams.requests import raise_error
from ..streams.stream import Stream
from .config import CounterConfig
from .digits import MAX_DIGITS, is_too_large, text_of
from .doubts import Doubts, thread_of_loop
from .failures import Outage, is_waited_for, may_be_applied, reached_no_stream
from .totals import Totals

T = TypeVar("T")

COUNTER_BROKEN = 10172
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 0.2  # an open circuit refuses at once
_random = SystemRandom()  # the random module's state belongs to the user

_ACKNOWLEDGED = re.compile(
    rb'\A\{"stream":"([^"]*)",\s*(?:"domain":"([^"]*)",\s*)?'
    rb'"seq":([1-9][0-9]{0,18}),\s*"val":\s*"(-?[0-9]+)"'
)


class Counted(NamedTuple):
    """An increment that was counted."""

    sequence: int
    """The sequence of its message in the stream."""
    total: int
    """The counter's total after it."""


class Increments:
    """Changes the counters of one stream.

    A counter is given by its subject, without the stream's prefix.
    """

    def __init__(self, stream: Stream[CounterConfig], messages: Messages, totals: Totals) -> None:
        self.stream = stream
        self._opening = stream.opening
        self.messages = messages
        self._totals = totals
        config = stream.config
        self._prefix = f"{config.prefix}."
        self._name = config.stream.encode()
        longest = config.deadline + config.request_timeout + stream.lanes.api.timeout
        self.doubts = Doubts(longest)
        self.outage = Outage(config.deadline)
        # Of this process, for statistics: threads may overwrite each other's addition.
        self.retried = self.recognised = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with new ids and without doubts, in a forked child: those are the parent's."""
        self._origin = secrets.token_urlsafe(12) + "-"
        self._numbers = count()
        self.doubts.clear()
        self.outage.end()

    def incr(self, counter: str, n: int, *, resend: bool = True) -> Steps[int]:
        """Add to a counter, exactly once, and return its new total, as of this increment.

        After a retry that the server recognised, the total may include later increments. Raises
        CounterUnavailable if the increment is not acknowledged within DEADLINE, and TypeError if
        ``n`` is not an integer. Without ``resend``, an increment that may have been applied is not
        sent again, but raises CounterUnavailable at once.
        """
        return (yield from self.count(counter, n, resend=resend)).total

    def count(self, counter: str, n: int, *, resend: bool = True) -> Steps[Counted]:
        """Add to a counter as incr() does, and return the sequence of the increment as well."""
        request = self.request(counter, require_integer("n", n))

        def conclude(reply: Reply) -> Steps[Counted]:
            counted = self.counted(reply)
            try:
                if counted is None:
                    return (yield from self._duplicate(counter, request, reply))
                sequence, digits = counted
                self.messages.remember(request.subject, sequence)
                return Counted(sequence, self._totals.integer(counter, digits))
            except Unreadable as error:
                raise Unreadable(f"The increment was counted, but: {error}") from error

        return self._insist(counter, request, conclude, resend=resend)

    def request(self, counter: str, delta: int, identity: str | None = None) -> Request:
        """Return the request of an increment, with an id of its own unless one is given.

        Raises ValueTooLarge if ``delta`` has more than MAX_DIGITS digits.
        """
        if is_too_large(delta):
            raise ValueTooLarge(
                f"An increment of the counter {counter} of the stream {self.stream.config.stream} "
                f"has more than {MAX_DIGITS:,} digits."
            )
        # Unique among all increments of the stream, in all processes.
        identity = identity or f"{self._origin}{next(self._numbers):x}"
        number = text_of(delta, "+")
        header = f"NATS/1.0\r\nNats-Incr: {number}\r\nNats-Msg-Id: {identity}\r\n\r\n"
        return Request(self.stream.lanes.writes, self._prefix + counter, b"", header.encode())

    def counted(self, reply: Reply) -> tuple[int, bytes] | None:
        """Return the sequence and total of an increment that is acknowledged as new.

        None for every other reply.
        """
        match = _ACKNOWLEDGED.match(reply.payload)
        if match is None or match[1] != self._name or match[2] != self._opening.domain:
            return None
        return int(match[3]), match[4]

    def reset(self, counter: str) -> Steps[None]:
        """Let a counter begin again from 0, and drop its history."""
        subject = self._prefix + counter
        request = self.purge_request(filter=subject)

        def purged(reply: Reply) -> Steps[None]:
            wire.parse_api(reply, documents.PURGED)
            yield from self.note_purged([subject])

        yield from self._insist(counter, request, purged)

    def purge_request(self, **what: object) -> Request:
        """Return a request that purges what a filter and a sequence name."""
        payload = wire.compact_json(what)
        return Request(self.stream.lanes.writes, self.stream.api.purge, payload)

    def note_purged(self, subjects: Iterable[str]) -> Steps[None]:
        """Note a purge. The server does not say how far it went: up to what there is now.

        The stream may have been given replicas, which this process does not know yet.
        """
        lanes, recent = self.stream.lanes, self.stream.recent
        for subject in subjects:
            recent.note_purged(subject.encode(), recent.newest)
        try:
            document = yield from self._opening.info(lanes.reopening)
        except NatsError:
            return  # it is done: a replica that is behind may tell the old total for a moment
        if document is not None:
            for subject in subjects:
                recent.note_purged(subject.encode(), document["state"]["last_seq"])

    def acknowledged(self, reply: Reply) -> Steps[Ack]:
        """Return the stream's acknowledgement of an increment.

        Raise DomainMismatch if it comes from another JetStream domain than that of the stream.
        Raises otherwise as Messages.acknowledged does.
        """
        ack = self.messages.acknowledged(reply)
        domain = wire.domain_of(reply)
        if domain != self._opening.domain:
            # Its servers may have got another domain since it was opened.
            try:
                yield from self._opening.open()
            except (Unavailable, ServerError) as error:
                raise OutcomeUnknown(f"An increment was stored, but: {error}") from error
        if domain != self._opening.domain:
            raise mismatch(self.stream.config.stream, self._opening.domain, domain)
        return ack

    # Until it is acknowledged ----------------------------------------------------------------

    def _insist(
        self,
        counter: str,
        request: Request,
        conclude: Callable[[Reply], Steps[T]],
        *,
        resend: bool = True,
    ) -> Steps[T]:
        """Repeat a request until it is acknowledged, or DEADLINE is over.

        Without ``resend``, only until it may have been applied.
        """
        stream, opening, doubts = self.stream, self._opening, self.doubts
        if stream.config.sources:
            raise ReadOnlyCounter(
                f"The counter {counter} of the stream {stream.config.stream} is the sum of those "
                "of its SOURCES: change one of them."
            )
        begun = monotonic()
        deadline = self.outage.deadline(begun)
        if counter in doubts:
            yield from self._until_known(counter, deadline)
        in_doubt = False
        pause = _FIRST_PAUSE_S
        try:
            while True:
                sent = False
                try:
                    if not opening.is_ready:
                        yield from opening.ready()
                    sent = True
                    result = yield from conclude((yield request))
                except (Unavailable, ServerError) as error:
                    failure: Unavailable | ServerError = error
                except NatsError as error:
                    if in_doubt and not sent:
                        raise self._given_up(counter, in_doubt, error) from error
                    raise
                else:
                    self.outage.end()
                    return result
                if sent and may_be_applied(failure) and not in_doubt:
                    in_doubt = True
                    doubts.note(counter, request, thread_of_loop())
                # The error with which the server refuses to create the stream comes again.
                passing = is_waited_for(failure) and (sent or isinstance(failure, Unavailable))
                if passing or isinstance(failure, NotSent):
                    self.outage.note_failure(begun)
                if reached_no_stream(failure):
                    opening.reopen()
                if not passing and not in_doubt:
                    raise self.refused(counter, failure)
                if not passing or (in_doubt and not resend) or monotonic() >= deadline:
                    raise self._given_up(counter, in_doubt, failure) from failure
                yield Pause(_random.uniform(0.5, 1) * pause)
                if monotonic() >= deadline:
                    # A process that was held up may come back when the id is long forgotten.
                    raise self._given_up(counter, in_doubt, failure) from failure
                pause = min(1.5 * pause, _LAST_PAUSE_S)
                self.retried += 1
        finally:
            if in_doubt:
                doubts.forget(counter, request)

    def persist(self, ask: Callable[[], Steps[T]]) -> Steps[T]:
        """Repeat a question that changes nothing until it is answered, or DEADLINE is over."""
        begun = monotonic()
        deadline = self.outage.deadline(begun)
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return (yield from ask())
            except Unavailable as failure:
                if not is_waited_for(failure) or monotonic() >= deadline:
                    raise
            self.outage.note_failure(begun)
            yield Pause(_random.uniform(0.5, 1) * pause)
            pause = min(1.5 * pause, _LAST_PAUSE_S)

    def _until_known(self, counter: str, deadline: float) -> Steps[None]:
        """Wait for the outcome of earlier changes of a counter."""
        doubts = self.doubts
        while doubts.can_be_settled(counter):
            turns: list[None] = []
            if thread_of_loop() is not None:
                asyncio.get_running_loop().call_soon(turns.append, None)
            # Even when time is up: the earlier changes may need this event loop to come to an end.
            yield Pause(_random.uniform(0.5, 1) * _FIRST_PAUSE_S)
            if not turns and doubts.is_stuck_here(counter):
                return
            if doubts.can_be_settled(counter) and monotonic() >= deadline:
                raise self.held_back(counter)

    # Errors ----------------------------------------------------------------------------------

    def held_back(self, counter: str) -> CounterUnavailable:
        """Return the error for a change that was not sent because of an earlier one."""
        earlier = NotSent("the outcome of an earlier change of it is still unknown")
        return self._given_up(counter, False, earlier)

    def _given_up(self, counter: str, in_doubt: bool, failure: Exception) -> CounterUnavailable:
        what = "may have been changed, or not" if in_doubt else "was not changed"
        return CounterUnavailable(
            f"The counter {counter} of the stream {self.stream.config.stream} {what}: {failure}",
            may_have_happened=in_doubt,
        )

    def refused(self, counter: str, failure: Unavailable | ServerError) -> NatsError:
        """Return the error for a final failure, which names the counter."""
        if not isinstance(failure, ServerError):
            return failure
        if failure.err_code == COUNTER_BROKEN:
            return self._totals.not_a_counter(counter)
        return type(failure)(
            f"The counter {counter} of the stream {self.stream.config.stream} was not changed: "
            f"{failure}",
            code=failure.code,
            err_code=failure.err_code,
        )

    # Duplicates ------------------------------------------------------------------------------

    def _duplicate(self, counter: str, request: Request, reply: Reply) -> Steps[Counted]:
        """Return an increment that was recognised: its acknowledgement has no total."""
        subject = request.subject.decode()
        messages = self.messages
        ack = yield from self.acknowledged(reply)
        self.recognised += 1
        # Its message has its own total, if history still has it; otherwise the last message counts.
        own, last = yield [
            messages.sequence_request(ack.sequence),
            messages.leader_request(subject),
        ]
        message = wire.parse_leader(raise_error(own))
        if message is not None and message.sequence != ack.sequence:
            raise UnexpectedReply(
                f"The {self.stream.config.title} was asked for the message {ack.sequence}, and "
                f"answered with the message {message.sequence}"
            )
        if message is None or message.subject != request.subject:
            message = messages.from_leaders_reply(subject, raise_error(last))
        messages.remember(request.subject, ack.sequence)
        return Counted(ack.sequence, self._totals.of(counter, message))


def require_integer(name: str, value: object) -> int:
    """Return a value as a plain integer. Raises TypeError if it is not one, or is a bool."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    return int(value)
