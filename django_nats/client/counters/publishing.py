"""Many increments at once, which no caller waits for: sent in one write, each counted exactly once.

The caller keeps the increments that are left over, and publishes them again, for longer than a
caller of ``incr`` would wait. What may have been applied is sent with the same id as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...exceptions import DomainMismatch, NatsError, NotSent, ServerError, Unavailable
from ...realtime import monotonic
from ..protocol.steps import Answer, Request, Steps
from ..streams.config import NANOSECONDS
from ..streams.requests import raise_error
from .digits import text_of
from .failures import may_be_applied, passes, reached_no_stream
from .increments import Increments

MOST_AT_ONCE = 1024
"""Increments in one write: as many as an outage can leave with an unknown outcome."""


class Increment:
    """One increment that no caller waits for."""

    __slots__ = ("counter", "delta", "doubted", "failure", "request")

    def __init__(self, counter: str, delta: int, request: Request) -> None:
        self.counter = counter
        self.delta = delta
        self.request = request
        self.failure: NatsError | None = NotSent()
        """Why it was not acknowledged at the last try; None once it is acknowledged."""
        self.doubted: float | None = None
        """When it was first sent, by the monotonic clock, if it may have been applied since."""

    def __repr__(self) -> str:
        return f"<Increment {self.counter} {text_of(self.delta, '+')}>"


class Publishing:
    """Publishes increments of one stream's counters for callers that do not wait."""

    def __init__(self, increments: Increments) -> None:
        self._increments = increments
        self._stream = increments.stream
        self._window_s = self._stream.config.deadline

    def learn(self, document: Mapping[str, Any]) -> None:
        """Take the time for which the server remembers ids from the stream's document."""
        self._window_s = document["config"].get("duplicate_window", 0) / NANOSECONDS

    @property
    def patience(self) -> float:
        """Seconds after its first try for which an increment may be published again.

        A third of the time for which the server remembers ids is left for what it passes on late.
        """
        return 2 / 3 * self._window_s

    def increment(self, counter: str, delta: int, identity: str | None = None) -> Increment:
        """Return an increment to be published, with an id of its own unless one is given.

        Raises ValueTooLarge if it has more than MAX_DIGITS digits.
        """
        return Increment(counter, delta, self._increments.request(counter, delta, identity))

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
                    self._increments.doubts.note(each.counter, each.request)

    def forget(self, increment: Increment) -> None:
        """Let no other change wait for an increment any more."""
        self._increments.doubts.forget(increment.counter, increment.request)

    def _is_held_back(self, increment: Increment) -> bool:
        """Return True if an earlier change of its counter must go first."""
        counter = increment.counter
        doubts = self._increments.doubts
        if increment.doubted is not None or not doubts.can_be_settled(counter):
            return False
        if doubts.is_stuck_here(counter):
            return False
        increment.failure = self._increments.held_back(counter)
        return True

    def _send(self, increments: Sequence[Increment]) -> Steps[None]:
        if not increments:
            return
        doubted = [each.doubted for each in increments]
        answers: Sequence[Answer]
        try:
            yield from self._stream.opening.ready()
            now = monotonic()
            for each in increments:
                # Before they are sent: whatever interrupts the rest, they may be on their way.
                each.doubted = each.doubted or now
            answers = yield [each.request for each in increments]
        except NatsError as error:
            answers = [error] * len(increments)
        for each, before, answer in zip(increments, doubted, answers, strict=True):
            each.failure = failure = yield from self._conclude(each, answer)
            if failure is None:
                each.doubted = None
            elif not _may_have_happened(failure):
                each.doubted = before

    def _conclude(self, increment: Increment, answer: Any) -> Steps[NatsError | None]:
        """Return why an increment is not acknowledged; None if it is."""
        increments = self._increments
        try:
            reply = raise_error(answer)
            counted = increments.counted(reply)
            if counted is None:
                sequence = (yield from increments.acknowledged(reply)).sequence
                increments.recognised += 1
            else:
                sequence = counted[0]
        except (Unavailable, ServerError) as failure:
            if reached_no_stream(failure):
                self._stream.opening.reopen()
            return failure if passes(failure) else increments.refused(increment.counter, failure)
        except NatsError as failure:
            return failure
        increments.outage.end()
        increments.messages.remember(increment.request.subject, sequence)
        return None


def _may_have_happened(failure: NatsError) -> bool:
    if isinstance(failure, DomainMismatch):
        return True  # the stream may have it, as well as that of the other domain
    return isinstance(failure, (Unavailable, ServerError)) and may_be_applied(failure)
