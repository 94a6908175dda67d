"""The operations on a counter stream, each written once, as steps.

Counters are given by their subjects, without the stream's prefix. Reads fail as fast as a cache's.
Changes are repeated until DEADLINE, as increments.py says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ...exceptions import (
    CounterUnavailable,
    LimitReached,
    PermissionDenied,
    ServerError,
    Unavailable,
    Unreadable,
)
from ..protocol import documents, wire
from ..protocol.steps import Request, Steps, next_item
from ..protocol.wire import Message
from ..streams.clock import Clock
from ..streams.messages import MAX_FROM_LEADER, UP_TO, Messages
from ..streams.opening import Opening
from ..streams.recent_writes import Recent
from ..streams.requests import raise_error
from ..streams.scan import last_messages, subject_matcher
from ..streams.server import Server
from ..streams.stream import Stream
from .config import CounterConfig
from .digits import text_of
from .increments import Increments, require_integer
from .publishing import Publishing
from .sources import breakdown
from .totals import Totals

T = TypeVar("T")

TOO_MANY_RESULTS = 413


class CounterStream:
    """One counter stream, as seen by this process: shared by threads, loops and aliases.

    ``increments`` changes counters for callers that wait, and ``publishing`` for those that do not.
    """

    def __init__(self, config: CounterConfig, server: Server, recent: Recent | None = None) -> None:
        self.config = config
        self._clock = Clock() if config.is_timed else None
        opening = Opening(
            config,
            server,
            recent or Recent(),
            clock=self._clock,
            on_open=lambda document: self.publishing.learn(document),
        )
        self.stream = Stream(opening)
        self.messages = Messages(self.stream, from_leader=config.reads == "leader")
        self.totals = Totals(config.stream)
        self._prefix = f"{config.prefix}."
        self.increments = Increments(self.stream, self.messages, self.totals)
        self.publishing = Publishing(self.increments)

    def __repr__(self) -> str:
        return f"<CounterStream {self.config.stream}>"

    def after_fork(self) -> None:
        """Forget, in a forked child, what was under way: it is the parent's."""
        self.increments.after_fork()

    def now(self) -> float:
        """Return the seconds since 1970 on the server's clock, once the stream is open.

        Raises ValueError if the config does not say that the stream is timed.
        """
        if self._clock is None:
            raise ValueError(f"The {self.config.title} is not timed")
        return self._clock.now()

    def server_time(self) -> Steps[float]:
        """Return the seconds since 1970 on the server's clock.

        No round trip, but a process that has not opened the stream yet does so first.
        """
        if self._clock is not None and not self._clock.is_known:
            yield from self._read(self.stream.opening.ready())
        return self.now()

    # Reading ---------------------------------------------------------------------------------

    def value(self, counter: str) -> Steps[int]:
        """Return the total of a counter; 0 if it was never changed. One round trip."""
        message = yield from self._read(self.messages.last(self._prefix + counter))
        return self.totals.of(counter, message)

    def last_change(self, counter: str) -> Steps[int]:
        """Return the sequence of a counter's last change, as the leader has it; 0 if there is none.

        One round trip. It waits for a leader until DEADLINE, as changes do.
        """
        subject = self._prefix + counter
        asking = self.increments.persist(lambda: self.messages.last_from_leader(subject))
        message = yield from self._read(asking)
        return 0 if message is None else message.sequence

    def get_many(self, counters: Sequence[str]) -> Steps[dict[str, int | None]]:
        """Return the totals of counters. One round trip up to MAX_BATCH of them.

        None, and a line in the log, for a counter that cannot be read.
        """
        totals = yield from self.stored(counters)
        return {counter: totals.get(counter, 0) for counter in counters}

    def stored(self, counters: Sequence[str]) -> Steps[dict[str, int | None]]:
        """Return the totals of those counters that were ever changed, and not reset since.

        None, and a line in the log, for a counter that cannot be read.
        """
        subjects = {self._prefix + counter: counter for counter in counters}
        found = yield from self._read(self.messages.last_of(list(subjects)))
        return {
            subjects[subject]: self.totals.in_list(subjects[subject], message)
            for subject, message in found.items()
            if message is not None
        }

    def matching(self, subject_filter: str) -> Steps[dict[str, int | None]]:
        """Return the totals of all counters that match a filter with wildcards.

        One round trip up to MAX_BATCH of them, and more with READS "leader". None, and a line in
        the log, for a counter that cannot be read.
        """
        subject_filter = self._prefix + subject_filter
        recent = self.stream.recent
        newest = recent.newest
        found, reached = yield from self._read(self._all(subject_filter))
        if not self.messages.from_leader and recent.may_be_missing(reached, newest):
            matches, is_stale = subject_matcher(subject_filter), self.messages.is_stale
            written = [each.decode() for each in recent.written() if matches(each)]
            own = [each for each in written if each not in found]
            stale = [each for each, message in found.items() if is_stale(each, message)]
            yield from self._read(self.messages.add_from_leader([*own, *stale], found))
        totals: dict[str, int | None] = {}
        for subject, message in found.items():
            if message is not None:
                counter = subject.removeprefix(self._prefix)
                totals[counter] = self.totals.in_list(counter, message)
        return totals

    def total(self, subject_filter: str) -> Steps[int]:
        """Return the sum of all counters that match a filter with wildcards and can be read."""
        return sum(filter(None, (yield from self.matching(subject_filter)).values()))

    def sources(self, counter: str) -> Steps[dict[str, int]]:
        """Return what each stream of SOURCES contributes to a counter; empty without SOURCES."""
        message = yield from self._read(self.messages.last(self._prefix + counter))
        header = None if message is None else wire.field(message.header, "Nats-Counter-Sources")
        if header is None:
            return {}
        try:
            return breakdown(header, self.config.sources)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable(
                f"The stream {self.config.stream} has no breakdown by sources for the counter "
                f"{counter}: {header[:100]!r}"
            ) from error

    def _read(self, steps: Steps[T]) -> Steps[T]:
        try:
            return (yield from steps)
        except (PermissionDenied, LimitReached):
            raise
        except Unavailable as error:
            raise CounterUnavailable(
                f"The counter stream {self.config.stream} could not be read: {error}"
            ) from error

    def _all(self, subject_filter: str) -> Steps[tuple[dict[str, Message | None], int]]:
        """Return the last messages that match a filter, and which sequence the replica had reached.

        It is 0 if that is not known.
        """
        reached = 0
        found: dict[str, Message | None] = {}
        matches = subject_matcher(subject_filter)
        if self.messages.from_leader:
            subjects = yield from self._known_to_leader(subject_filter)
            if not all(matches(each.encode()) for each in subjects):
                raise self.messages.foreign(subject_filter)
            yield from self.messages.add_from_leader(subjects, found)
            return found, reached
        request = self.messages.batch_request([subject_filter])
        (replies,) = yield from self.stream.pipeline([request])
        try:
            for reply in raise_error(replies):
                if wire.status(reply) == 204:
                    if wire.pending(reply.header):
                        return (yield from self._scan(subject_filter)), 0
                    reached = wire.count_field(reply.header, UP_TO) or 0
                    continue
                message = wire.parse_direct(reply)
                if message is not None:
                    if not matches(message.subject):
                        raise self.messages.foreign(subject_filter)
                    found[self.totals.text_of(message.subject)] = message
        except ServerError as error:
            if error.code != TOO_MANY_RESULTS:
                raise
            return (yield from self._scan(subject_filter)), 0
        return found, reached

    def _known_to_leader(self, subject_filter: str) -> Steps[list[str]]:
        """Return the subjects that match a filter, as the stream's leader lists them."""
        subjects: list[str] = []
        while True:
            wanted = {"subjects_filter": subject_filter, "offset": len(subjects)}
            payload = wire.compact_json(wanted)
            request = Request(self.stream.lanes.questions, self.stream.api.info, payload)
            reply = yield from self.stream.ask_leader(request)
            page = wire.parse_api(reply, documents.SUBJECTS)
            listed = page["state"].get("subjects", {})
            subjects += listed
            if not listed or len(subjects) >= page.get("total", 0):
                return subjects

    def _scan(self, subject_filter: str) -> Steps[dict[str, Message | None]]:
        """Read more counters than fit into one answer."""
        found: dict[str, Message | None] = {}
        batches = last_messages(self.stream, subject_filter)
        try:
            while (item := (yield from next_item(batches))) is not None:
                for reply, sequence, _ in item.value:
                    subject = reply.subject
                    message = Message(subject, sequence, reply.header, reply.payload, b"")
                    found[self.totals.text_of(subject)] = message
        finally:
            batches.close()
        return found

    # Changing --------------------------------------------------------------------------------

    def incr(self, counter: str, n: int) -> Steps[int]:
        """Add to a counter, exactly once, and return its new total: see ``Increments.incr``."""
        return self.increments.incr(counter, n)

    def give_back(self, counter: str, n: int) -> Steps[int]:
        """Subtract n, never more than once, and return the new total.

        It is sent again, as increments are, only if the stream has replicas. A lone server that has
        restarted meanwhile might not recognise it. Raises CounterUnavailable as incr() does.
        """
        return self.increments.incr(counter, -n, resend=self.stream.opening.replicated)

    def reset(self, counter: str) -> Steps[None]:
        """Let a counter begin again from 0, and drop its history."""
        return self.increments.reset(counter)

    def set(self, counter: str, total: int) -> Steps[int]:
        """Bring a counter to a total, by adding the difference, and return the new total.

        Not atomic: what others add between the reading and the adding is added to the total, too.
        """
        total = require_integer("total", total)
        last = self.messages.last_from_leader(self._prefix + counter)
        message = yield from self._read(last)
        difference = total - self.totals.of(counter, message)
        return (yield from self.incr(counter, difference)) if difference else total

    def take(self, counter: str, n: int, floor: int) -> Steps[bool]:
        """Subtract n unless that leaves less than the floor. Return True if it was subtracted.

        Never oversells: each caller sees the total that its own subtraction left, and gives back
        what went below the floor. Meanwhile another caller may be refused that would have found
        enough a moment later.
        """
        n, floor = require_integer("n", n), require_integer("floor", floor)
        if n < 1:
            raise ValueError(f"n must be at least 1 to be taken, not {text_of(n)}")
        # A counter that is sold out is not written to at every try.
        if (yield from self.value(counter)) - n < floor:
            return False
        if (yield from self.incr(counter, -n)) >= floor:
            return True
        try:
            yield from self.incr(counter, n)
        except CounterUnavailable as error:
            raise CounterUnavailable(
                f"{text_of(n)} of {counter} were not there to take, and could not be given back, "
                f"so that its total may be too low by {text_of(n)}: {error}",
                may_have_happened=True,
            ) from error
        return False

    def purge(
        self, counters: Sequence[str], sequences: Mapping[str, int] | None = None
    ) -> Steps[None]:
        """Let counters begin again from 0, in one try: the first failure leaves the others.

        With ``sequences``, a counter that was changed after the one given for it keeps its total.
        """
        purges = []
        for counter in counters:
            what: dict[str, object] = {"filter": self._prefix + counter}
            if sequences is not None:
                what["seq"] = sequences[counter] + 1
            purges.append(self.increments.purge_request(**what))
        for start in range(0, len(purges), MAX_FROM_LEADER):
            chunk = slice(start, start + MAX_FROM_LEADER)
            for reply in (yield from self.stream.pipeline(purges[chunk])):
                wire.parse_api(raise_error(reply), documents.PURGED)
            yield from self._note_purged(counters[chunk], sequences)

    def _note_purged(
        self, counters: Sequence[str], sequences: Mapping[str, int] | None
    ) -> Steps[None]:
        subjects = {self._prefix + counter: counter for counter in counters}
        if sequences is None:
            return (yield from self.increments.note_purged(subjects))
        recent = self.stream.recent
        for subject, counter in subjects.items():
            # What this process has done after that, it knows already.
            if not recent.is_stale(subject.encode(), sequences[counter]):
                recent.note_purged(subject.encode(), sequences[counter])
