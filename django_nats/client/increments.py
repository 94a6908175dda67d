"""Increments that count exactly once, whatever becomes of servers and connections.

Each carries an id that the server remembers for three DEADLINEs. What may have been applied goes
out again with the same id, until the server acknowledges it: as new, or as a duplicate. The server
finds the ids again in the messages it has stored, so that after a restart of a lone server an
increment that comes again is recognised only while fewer than HISTORY later ones of the same
counter came between. Hence, within this process, those in doubt go before new ones. And a server
that was stopped for longer than it remembers ids may pass on what others have applied meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from itertools import count
from random import SystemRandom
from threading import get_ident
from time import monotonic
from typing import NamedTuple, TypeVar

from ..exceptions import (
    AuthenticationFailed,
    BucketFull,
    CounterUnavailable,
    NatsError,
    NoLeader,
    NotSent,
    ReadOnlyCounter,
    ServerError,
    Unavailable,
    Unreadable,
)
from . import wire
from .counterconfig import CounterConfig
from .exchange import raise_error
from .messages import Messages
from .opening import Server
from .recent import Recent
from .steps import Pause, Request, Steps
from .wire import Message, Reply

T = TypeVar("T")

UNAVAILABLE = 503
TOO_MANY_REQUESTS = 429
COUNTER_BROKEN = 10172
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 0.2  # seconds; the circuit refuses at once while it is open
_chance = SystemRandom()  # the random module's state is the user's

ACKNOWLEDGED = re.compile(
    rb'\A\{"stream":"[^"]*",\s*(?:"domain":"[^"]*",\s*)?"seq":(\d+),\s*"val":\s*"(-?\d+)"'
)
_TOTAL = re.compile(rb'\A\{"val":\s*"(-?\d+)"\}\Z')


class Doubt(NamedTuple):
    """A change of which nobody knows yet whether it is applied."""

    since: float
    thread: int | None
    """Whose event loop has to go on before it can be known."""


class Increments(Messages[CounterConfig]):
    """The part of a counter stream that changes counters.

    A counter is given by its subject, without the stream's prefix.
    """

    def __init__(self, config: CounterConfig, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._subject = f"{config.prefix}."
        self._purge = f"$JS.API.STREAM.PURGE.{config.stream}"
        # By then whoever had a doubt has come to an end, or was abandoned together with its loop.
        self._longest_doubt = config.deadline + config.request_timeout + self._api.timeout
        # Of this process, for statistics: threads may overwrite each other's addition.
        self.retried = self.recognised = 0
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: what was under way is the parent's."""
        self._origin = secrets.token_urlsafe(12) + "-"
        self._numbers = count()
        self._doubts: dict[str, dict[Request, Doubt]] = {}
        self._outage: tuple[float, float] | None = None

    def incr(self, counter: str, delta: int) -> Steps[int]:
        """Add to a counter, exactly once; its new total, as of this increment.

        After a retry that the server recognised, and when later increments have gone over it,
        the total may be theirs. Raises CounterUnavailable when that does not come to an end
        within DEADLINE, TypeError for a delta that is no integer.
        """
        request = self._increment(counter, require_integer("delta", delta))

        def total(reply: Reply) -> Steps[int]:
            acknowledged = ACKNOWLEDGED.match(reply.payload)
            try:
                if acknowledged is None:
                    return (yield from self._total_of_duplicate(counter, request, reply))
                self._remember(request.subject, int(acknowledged[1]))
                return self._integer(counter, acknowledged[2])
            except Unreadable as error:
                raise Unreadable(f"The increment was counted, but: {error}") from error

        return self._insist(counter, request, total)

    def _increment(self, counter: str, delta: int, identity: str | None = None) -> Request:
        # Unique among all increments of the stream, whoever makes them.
        identity = identity or f"{self._origin}{next(self._numbers):x}"
        header = f"NATS/1.0\r\nNats-Incr: {delta:+d}\r\nNats-Msg-Id: {identity}\r\n\r\n".encode()
        return Request(self.writes, self._subject + counter, b"", header)

    def reset(self, counter: str) -> Steps[None]:
        """Let a counter begin again from 0, history and all."""
        subject = self._subject + counter
        request = Request(self.writes, self._purge, wire.compact_json({"filter": subject}))

        def purged(reply: Reply) -> Steps[None]:
            wire.parse_api(reply)
            if self.replicated:
                yield from self._note_purged([subject])

        yield from self._insist(counter, request, purged)

    def _note_purged(self, subjects: Iterable[str]) -> Steps[None]:
        """A purge is not told how far it went; up to what there is now, for certain."""
        try:
            document = yield from self.info()
        except NatsError:
            return  # it is done: a replica that lags may tell the old total for a moment
        if document is not None:
            for subject in subjects:
                self.recent.note_purged(subject, document["state"]["last_seq"])

    # Until it is acknowledged ----------------------------------------------------------------

    def _insist(
        self, counter: str, request: Request, conclude: Callable[[Reply], Steps[T]]
    ) -> Steps[T]:
        """Send a request that may be repeated until it is answered, or time is up."""
        if self.config.sources:
            raise ReadOnlyCounter(
                f"The counter {counter} of the stream {self.config.stream} is the sum of those of "
                f"its SOURCES: change one of them."
            )
        begun = monotonic()
        deadline = self._deadline(begun)
        if counter in self._doubts:
            yield from self._until_known(counter, deadline)
        in_doubt = False
        pause = _FIRST_PAUSE
        try:
            while True:
                sent = False
                try:
                    if not self.is_ready:
                        yield from self.ready()
                    sent = True
                    result = yield from conclude((yield request))
                except (Unavailable, ServerError) as error:
                    failure: Unavailable | ServerError = error
                except NatsError as error:
                    if in_doubt and not sent:
                        raise self._given_up(counter, in_doubt, error) from error
                    raise
                else:
                    self._outage = None
                    return result
                if sent and may_be_applied(failure) and not in_doubt:
                    in_doubt = True
                    self._note_doubt(counter, request, _thread_of_loop())
                # What the server says to the making of the stream, it will say again.
                passing = passes(failure) and (sent or isinstance(failure, Unavailable))
                if passing or isinstance(failure, Unavailable):
                    self._note_failure(begun)
                if nobody_listened(failure):
                    self._opened = -1  # it may have been deleted: look, and make it
                if not passing and not in_doubt:
                    raise self._refused(counter, failure)
                if not passing or monotonic() >= deadline:
                    raise self._given_up(counter, in_doubt, failure) from failure
                yield Pause(_chance.uniform(0.5, 1) * pause)
                if monotonic() >= deadline:
                    # A process that was held up may come back when the id is long forgotten.
                    raise self._given_up(counter, in_doubt, failure) from failure
                pause = min(1.5 * pause, _LAST_PAUSE)
                self.retried += 1
        finally:
            if in_doubt:
                self._forget_doubt(counter, request)

    def _until_known(self, counter: str, deadline: float) -> Steps[None]:
        """Let those go first of which nobody knows yet whether they are applied."""
        while self._is_in_doubt(counter):
            turns: list[None] = []
            if _thread_of_loop() is not None:
                asyncio.get_running_loop().call_soon(turns.append, None)
            # Even when time is up: those in doubt may need this event loop to come to an end.
            yield Pause(_chance.uniform(0.5, 1) * _FIRST_PAUSE)
            if not turns and self._is_stuck_here(counter):
                return
            if self._is_in_doubt(counter) and monotonic() >= deadline:
                raise self._held_back(counter)

    def _is_stuck_here(self, counter: str) -> bool:
        """Whether a doubt has to wait for the event loop of this thread, which a synchronous call
        holds up: to wait for it would be to wait for oneself."""
        here = _thread_of_loop()
        doubts = list(self._doubts.get(counter, {}).values())
        return here is not None and any(each.thread == here for each in doubts)

    def _is_in_doubt(self, counter: str) -> bool:
        """Whether there is a doubt that can still be settled; forgets the others."""
        oldest = monotonic() - self._longest_doubt
        for request, doubt in list(self._doubts.get(counter, {}).items()):
            if doubt.since < oldest:
                self._forget_doubt(counter, request)
        return counter in self._doubts

    def _note_doubt(self, counter: str, request: Request, thread: int | None = None) -> None:
        self._doubts.setdefault(counter, {})[request] = Doubt(monotonic(), thread)

    def _held_back(self, counter: str) -> CounterUnavailable:
        earlier = NotSent("an earlier change of it is still in doubt")
        return self._given_up(counter, False, earlier)

    def _forget_doubt(self, counter: str, request: Request) -> None:
        # Another thread may add to them at this moment: its doubt then holds nobody back.
        doubts = self._doubts.get(counter, {})
        doubts.pop(request, None)
        if not doubts:
            self._doubts.pop(counter, None)

    def _deadline(self, now: float) -> float:
        """When a call that begins now gives up: many in a row wait for one DEADLINE in all."""
        patience = self.config.deadline
        if self._outage is not None:
            began, last_failure = self._outage
            if now - last_failure <= patience:
                return began + patience
        return now + patience

    def _note_failure(self, begun: float) -> None:
        now = monotonic()
        if self._outage is not None and now - self._outage[1] <= self.config.deadline:
            begun = self._outage[0]
        self._outage = (begun, now)

    def _given_up(self, counter: str, in_doubt: bool, failure: Exception) -> CounterUnavailable:
        what = "may have been changed, or not" if in_doubt else "was not changed"
        return CounterUnavailable(
            f"The counter {counter} of the stream {self.config.stream} {what}: {failure}",
            may_have_happened=in_doubt,
        )

    def _refused(self, counter: str, failure: Unavailable | ServerError) -> NatsError:
        """The failure, which is final, with a word on the counter."""
        if not isinstance(failure, ServerError):
            return failure
        if failure.err_code == COUNTER_BROKEN:
            return self._no_counter(counter)
        return type(failure)(
            f"The counter {counter} of the stream {self.config.stream} was not changed: {failure}",
            code=failure.code,
            err_code=failure.err_code,
        )

    # Totals ----------------------------------------------------------------------------------

    def _total_of_duplicate(self, counter: str, request: Request, reply: Reply) -> Steps[int]:
        """The total of an increment whose acknowledgement does not tell it, for it came twice."""
        subject = request.subject.decode()
        ack = wire.parse_ack(reply)
        self.recognised += 1
        # What it stored tells its own total, if history still has it; else the last one counts.
        own, last = yield [
            Request(self.writes, self._leader, wire.compact_json({"seq": ack.sequence})),
            self._leader_request(subject),
        ]
        message = wire.parse_leader(raise_error(own))
        if message is None or message.subject != request.subject:
            message = self._told_by_leader(subject, raise_error(last))
        self._remember(request.subject, ack.sequence)
        return self._total(counter, message)

    def _total(self, counter: str, message: Message | None) -> int:
        """What a message counts; 0 where there is none."""
        if message is None:
            return 0
        total = _TOTAL.match(message.payload)
        if total is None:
            raise self._no_counter(counter)
        return self._integer(counter, total[1])

    def _integer(self, counter: str, digits: bytes) -> int:
        try:
            return int(digits)
        except ValueError as error:
            raise Unreadable(
                f"The counter {counter} of the stream {self.config.stream} has more digits than "
                f"Python reads: see sys.set_int_max_str_digits. ({error})"
            ) from error

    def _no_counter(self, counter: str) -> Unreadable:
        return Unreadable(
            f"What the stream {self.config.stream} last stored for {counter} is no counter. Reset "
            "it to begin again from 0."
        )


def require_integer(name: str, value: object) -> int:
    """A plain integer, whatever a subclass makes of its text. Raises TypeError for all else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    return int(value)


def _thread_of_loop() -> int | None:
    """This thread, if an event loop is running on it."""
    return None if asyncio._get_running_loop() is None else get_ident()


def nobody_listened(failure: Unavailable | ServerError) -> bool:
    """Whether nobody listened: the request has reached no stream, for certain."""
    return isinstance(failure, NoLeader) and failure.err_code == 0


def passes(failure: Unavailable | ServerError) -> bool:
    """Whether a failure is of the moment, so that trying again makes sense."""
    if isinstance(failure, Unavailable):
        return not isinstance(failure, AuthenticationFailed)
    # Of those with code 500, the ones that pass are NoLeader: the others come again each time.
    in_flight = failure.err_code in (wire.SAME_ID_IN_FLIGHT, wire.WRITE_IN_FLIGHT)
    busy = failure.code in (UNAVAILABLE, TOO_MANY_REQUESTS)
    return in_flight or (busy and not isinstance(failure, BucketFull))


def may_be_applied(failure: Unavailable | ServerError) -> bool:
    """Whether the request may have come to something, or may yet, in spite of a failure."""
    if isinstance(failure, NotSent) or nobody_listened(failure):
        return False
    return passes(failure) and getattr(failure, "code", 0) != TOO_MANY_REQUESTS
