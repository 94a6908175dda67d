"""Many increments at once, which nobody waits for: sent in one write, each still exactly once.

Whoever has them published keeps those that are left over, and has them published again, for
longer than a caller could wait: what may have been applied goes out with the same id as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from ..exceptions import NatsError, NotSent, ServerError, Unavailable, ValueTooLarge
from . import wire
from .counterconfig import CounterConfig
from .exchange import raise_error
from .increments import ACKNOWLEDGED, Increments, may_be_applied, nobody_listened, passes
from .opening import Server
from .recent import Recent
from .steps import Answer, Request, Steps
from .streamconfig import NANOSECONDS

MOST_AT_ONCE = 1024
"""Increments in one write: as many as an outage can put in doubt."""


class Increment:
    """One increment that nobody waits for."""

    __slots__ = ("counter", "delta", "doubted", "failure", "request")

    def __init__(self, counter: str, delta: int, request: Request) -> None:
        self.counter = counter
        self.delta = delta
        self.request = request
        self.failure: NatsError | None = NotSent()
        """Why it is not acknowledged, as of the last try; None once it is."""
        self.doubted: float | None = None
        """When it was first sent, by the monotonic clock, if it may have been applied since."""

    def __repr__(self) -> str:
        return f"<Increment {self.counter} {self.delta:+d}>"


class Publishing(Increments):
    """The part of a counter stream that publishes for those who do not wait."""

    def __init__(self, config: CounterConfig, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._window = config.deadline

    def _learn(self, document: Mapping[str, Any]) -> None:
        super()._learn(document)
        self._window = document["config"].get("duplicate_window", 0) / NANOSECONDS

    @property
    def patience(self) -> float:
        """Seconds after its first try for which an increment may be published again.

        A third of the time that the server remembers ids is left for what it passes on late.
        """
        return 2 / 3 * self._window

    def increment(self, counter: str, delta: int, identity: str | None = None) -> Increment:
        """An increment to be published, with an id of its own unless one is given.

        Raises ValueTooLarge for more digits than Python writes.
        """
        try:
            return Increment(counter, delta, self._increment(counter, delta, identity))
        except ValueError as error:
            raise ValueTooLarge(
                f"An increment of the counter {counter} of the stream {self.config.stream} has "
                f"more digits than Python writes: see sys.set_int_max_str_digits. ({error})"
            ) from error

    def publish(self, increments: Sequence[Increment]) -> Steps[None]:
        """Send increments of different counters in one write, and note what became of each.

        Raises no NatsError: each increment has its ``failure``.
        """
        free = [each for each in increments if not self._is_held_back(each)]
        try:
            yield from self._send(free)
        finally:
            for each in free:
                if each.doubted is None:
                    self.forget(each)
                else:
                    self._note_doubt(each.counter, each.request)

    def forget(self, increment: Increment) -> None:
        """Hold nobody back for an increment any more."""
        self._forget_doubt(increment.counter, increment.request)

    def _is_held_back(self, increment: Increment) -> bool:
        """Whether one of its counter goes first of which nobody knows yet if it is applied."""
        counter = increment.counter
        if increment.doubted is not None or not self._is_in_doubt(counter):
            return False
        if self._is_stuck_here(counter):
            return False
        increment.failure = self._held_back(counter)
        return True

    def _send(self, increments: Sequence[Increment]) -> Steps[None]:
        if not increments:
            return
        doubted = [each.doubted for each in increments]
        answers: Sequence[Answer]
        try:
            yield from self.ready()
            now = monotonic()
            for each in increments:
                # Before they go: whatever interrupts the rest, they may be on their way.
                each.doubted = each.doubted or now
            answers = yield [each.request for each in increments]
        except NatsError as error:
            answers = [error] * len(increments)
        for each, before, answer in zip(increments, doubted, answers, strict=True):
            each.failure = failure = self._conclude(each, answer)
            if failure is None:
                each.doubted = None
            elif not _may_have_happened(failure):
                each.doubted = before

    def _conclude(self, increment: Increment, answer: Any) -> NatsError | None:
        """Why an increment is not acknowledged; None if it is."""
        try:
            reply = raise_error(answer)
            acknowledged = ACKNOWLEDGED.match(reply.payload)
            if acknowledged is None:
                sequence = wire.parse_ack(reply).sequence
                self.recognised += 1
            else:
                sequence = int(acknowledged[1])
        except (Unavailable, ServerError) as failure:
            if nobody_listened(failure):
                self._opened = -1  # it may have been deleted: look, and make it
            return failure if passes(failure) else self._refused(increment.counter, failure)
        except NatsError as failure:
            return failure
        self._outage = None
        self._remember(increment.request.subject, sequence)
        return None


def _may_have_happened(failure: NatsError) -> bool:
    return isinstance(failure, (Unavailable, ServerError)) and may_be_applied(failure)
