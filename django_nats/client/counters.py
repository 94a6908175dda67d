"""The operations on a counter stream, each written once, as steps.

Counters are given by their subjects, without the stream's prefix. Reads fail as fast as a cache's;
what changes a counter goes on trying, as increments.py says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..exceptions import CounterUnavailable, ServerError, Unavailable, Unreadable
from . import wire
from .consumer import last_messages
from .counterconfig import CounterConfig
from .exchange import raise_error
from .increments import require_integer
from .messages import MAX_BATCH, MAX_BATCH_REPLY, MAX_FROM_LEADER
from .opening import Server
from .publishing import Publishing
from .recent import Recent
from .sources import breakdown
from .steps import Request, Steps, next_item
from .wire import Message

T = TypeVar("T")

TOO_MANY_RESULTS = 413


class CounterStream(Publishing):
    """One counter stream, as seen by this process: shared by threads, loops and aliases."""

    def __init__(self, config: CounterConfig, server: Server, recent: Recent | None = None) -> None:
        super().__init__(config, server, recent or Recent())

    # Reading ---------------------------------------------------------------------------------

    def value(self, counter: str) -> Steps[int]:
        """The total of a counter, 0 for one that was never changed. One round trip."""
        message = yield from self._read(self._last(self._subject + counter))
        return self._total(counter, message)

    def get_many(self, counters: Sequence[str]) -> Steps[dict[str, int]]:
        """The totals of counters. One round trip up to MAX_BATCH of them."""
        totals = yield from self.stored(counters)
        return {counter: totals.get(counter, 0) for counter in counters}

    def stored(self, counters: Sequence[str]) -> Steps[dict[str, int]]:
        """The totals of those counters that were ever changed, and not reset since."""
        subjects = {self._subject + counter: counter for counter in counters}
        found = yield from self._read(self._last_of(list(subjects)))
        return {
            subjects[subject]: self._total(subjects[subject], message)
            for subject, message in found.items()
            if message is not None
        }

    def matching(self, subject_filter: str) -> Steps[dict[str, int]]:
        """The totals of all counters that a filter with wildcards lets through.

        One round trip up to MAX_BATCH of them.
        """
        subject_filter = self._subject + subject_filter
        found = yield from self._read(self._all(subject_filter))
        matches = _matcher(subject_filter)
        own = [each for each in self.recent.written() if each not in found and matches(each)]
        stale = [each for each, message in found.items() if self._is_stale(each, message)]
        yield from self._read(self._batch_from_leader([*own, *stale], found))
        totals = {}
        for subject, message in found.items():
            if message is not None:
                counter = subject.removeprefix(self._subject)
                totals[counter] = self._total(counter, message)
        return totals

    def total(self, subject_filter: str) -> Steps[int]:
        """The sum of all counters that a filter with wildcards lets through."""
        return sum((yield from self.matching(subject_filter)).values())

    def sources(self, counter: str) -> Steps[dict[str, int]]:
        """What each stream of SOURCES contributes to a counter; nothing without SOURCES."""
        message = yield from self._read(self._last(self._subject + counter))
        told = None if message is None else wire.field(message.header, "Nats-Counter-Sources")
        if told is None:
            return {}
        try:
            return breakdown(told, self.config.sources)
        except (ValueError, TypeError, AttributeError) as error:
            raise Unreadable(
                f"The stream {self.config.stream} tells of {counter}'s sources what is no "
                f"breakdown: {told[:100]!r}"
            ) from error

    def _read(self, steps: Steps[T]) -> Steps[T]:
        try:
            return (yield from steps)
        except Unavailable as error:
            raise CounterUnavailable(
                f"The counter stream {self.config.stream} could not be read: {error}"
            ) from error

    def _all(self, subject_filter: str) -> Steps[dict[str, Message | None]]:
        document = {"multi_last": [subject_filter], "max_bytes": MAX_BATCH_REPLY}
        request = Request(
            self.reads, self._direct, wire.compact_json(document), gather=MAX_BATCH + 1
        )
        found: dict[str, Message | None] = {}
        (replies,) = yield from self.pipeline([request])
        try:
            for reply in raise_error(replies):
                if wire.status(reply) == 204:
                    if wire.pending(reply.header):
                        return (yield from self._walk(subject_filter))
                    continue
                message = wire.parse_direct(reply)
                if message is not None:
                    found[message.subject.decode()] = message
        except ServerError as error:
            if error.code != TOO_MANY_RESULTS:
                raise
            return (yield from self._walk(subject_filter))
        return found

    def _walk(self, subject_filter: str) -> Steps[dict[str, Message | None]]:
        """More than fit into one answer."""
        found: dict[str, Message | None] = {}
        batches = last_messages(self, subject_filter)
        try:
            while (item := (yield from next_item(batches))) is not None:
                for reply, sequence, _ in item.value:
                    subject = reply.subject
                    message = Message(subject, sequence, reply.header, reply.payload, b"")
                    found[subject.decode()] = message
        finally:
            batches.close()
        return found

    # Changing, beside incr and reset ---------------------------------------------------------

    def set(self, counter: str, total: int) -> Steps[int]:
        """Bring a counter to a total, by adding the difference; the new total.

        Not atomic: what others add between the reading and the adding is added to the total, too.
        """
        total = require_integer("total", total)
        message = yield from self._read(self._ask_leader(self._subject + counter))
        difference = total - self._total(counter, message)
        return (yield from self.incr(counter, difference)) if difference else total

    def purge(
        self, counters: Sequence[str], sequences: Mapping[str, int] | None = None
    ) -> Steps[None]:
        """Let counters begin again from 0, in one try: the first failure leaves the others.

        With sequences, a counter that was changed after the one given for it keeps its total.
        """
        documents: list[dict[str, Any]] = [
            {"filter": self._subject + counter}
            | ({} if sequences is None else {"seq": sequences[counter] + 1})
            for counter in counters
        ]
        for start in range(0, len(documents), MAX_FROM_LEADER):
            chunk = map(wire.compact_json, documents[start : start + MAX_FROM_LEADER])
            requests = [Request(self.writes, self._purge, each) for each in chunk]
            for reply in (yield from self.pipeline(requests)):
                wire.parse_api(raise_error(reply))
            if self.replicated:
                yield from self._note_all_purged(counters[start : start + len(requests)], sequences)

    def _note_all_purged(
        self, counters: Sequence[str], sequences: Mapping[str, int] | None
    ) -> Steps[None]:
        subjects = {self._subject + counter: counter for counter in counters}
        if sequences is None:
            return (yield from self._note_purged(subjects))
        for subject, counter in subjects.items():
            # What this process has done later than that, it knows already.
            if not self.recent.is_stale(subject, sequences[counter]):
                self.recent.note_purged(subject, sequences[counter])

    def take(self, counter: str, n: int, floor: int) -> Steps[bool]:
        """Take n away unless that leaves less than the floor; whether it did.

        Never oversells: each caller sees the total that its own taking left, and gives back what
        went below the floor. While one gives back, another may be refused who would have found
        enough a moment later.
        """
        n, floor = require_integer("n", n), require_integer("floor", floor)
        if n < 1:
            raise ValueError(f"n must be at least 1 to be taken, not {n}")
        # What is sold out is not written to at every try.
        if (yield from self.value(counter)) - n < floor:
            return False
        if (yield from self.incr(counter, -n)) >= floor:
            return True
        try:
            yield from self.incr(counter, n)
        except CounterUnavailable as error:
            raise CounterUnavailable(
                f"{n} of {counter} were not there to take, and could not be given back, so that "
                f"its total may be too low by {n}: {error}",
                may_have_happened=True,
            ) from error
        return False


def _matcher(subject_filter: str) -> Callable[[str], object]:
    tokens = {"*": r"[^.]+", ">": r".+"}
    regex = r"\.".join(tokens.get(each, re.escape(each)) for each in subject_filter.split("."))
    return re.compile(regex).fullmatch
