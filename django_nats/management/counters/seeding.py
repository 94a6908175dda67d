"""Giving counters the totals they had elsewhere: safe while others count, and safe to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import NamedTuple

from django.core.management.base import CommandError

from ...client.counters import CounterStream
from ...client.increments import passes
from ...client.publishing import Increment
from ...client.steps import Pause, Steps
from ...counters.collection import Counters
from ...exceptions import ReadOnlyCounter, ServerError, Unavailable
from ..progress import Progress
from .asking import BATCH, ask

BEFORE = "Totals before that may be in place; to seed them again does no harm."
_PAUSE = 0.2  # seconds


class Total(NamedTuple):
    """What a counter is to begin with."""

    subject: str
    value: int
    origin: str
    """Where the total comes from, in words."""


class Seeding:
    """The totals go in as increments, so that nothing is lost of what is counted meanwhile."""

    def __init__(self, alias: str, *, overwrite: bool) -> None:
        self._alias = alias
        self._overwrite = overwrite
        self.seeded = self.overwritten = self.right = self.left = 0
        config = Counters(alias).settings.stream
        if config.sources:
            raise ReadOnlyCounter(
                f'NATS_COUNTERS["{alias}"] is the sum of its SOURCES: seed one of them.'
            )

    def seed(self, totals: Iterator[Total], progress: Progress) -> None:
        """In batches, each with a question and an answer. Raises CommandError."""
        while batch := list(islice(totals, BATCH)):
            self._seed_batch(batch)
            progress.advance(len(batch))

    def _seed_batch(self, batch: Sequence[Total]) -> None:
        stored = ask(self._alias, CounterStream.stored, [each.subject for each in batch])
        missing: dict[str, int] = {}
        differing: dict[str, int] = {}
        for subject, value, _ in batch:
            before = stored.get(subject)
            if before == value or (before is None and value == 0):
                self.right += 1
            elif before is None:
                missing[subject] = value
            elif self._overwrite:
                differing[subject] = value - before
            else:
                self.left += 1
        ask(self._alias, _publish, missing, differing)
        self.seeded += len(missing)
        self.overwritten += len(differing)


def once(totals: Iterable[Total]) -> Iterator[Total]:
    """Each total once. Two of different origin for one counter are a mistake: a CommandError."""
    origins: dict[str, str] = {}
    for total in totals:
        origin = origins.get(total.subject)
        if origin is None:
            origins[total.subject] = total.origin
            yield total
        elif origin != total.origin:  # SCAN may tell of a key twice
            raise CommandError(
                f"{origin} and {total.origin} are for the same counter, {total.subject}. {BEFORE}"
            )


def _publish(
    stream: CounterStream, missing: dict[str, int], differing: dict[str, int]
) -> Steps[None]:
    # An id that is the same in every run: of two runs at once, or of a run and what an earlier one
    # left under way, the server takes only one.
    increments = [
        stream.increment(subject, value, f"seed.{subject}") for subject, value in missing.items()
    ]
    increments += [stream.increment(subject, delta) for subject, delta in differing.items()]
    recognised = stream.recognised
    failed = yield from _published(stream, increments)
    if failed:
        raise CommandError(
            f"{len(failed):,} of {len(increments):,} counters of a batch may not have been seeded, "
            f"{failed[0].counter} among them: {failed[0].failure} Run this again: those that were "
            "are left alone."
        )
    if stream.recognised == recognised:
        return
    # The server remembers a seed's id longer than a counter that was reset.
    stored = yield from stream.stored(list(missing))
    if lost := missing.keys() - stored.keys():
        raise CommandError(
            f"{len(lost):,} counters were seeded and reset a moment ago, {min(lost)} among them. "
            f"Run this again in {3 * stream.config.deadline:g} seconds."
        )


def _passes(increment: Increment) -> bool:
    failure = increment.failure
    return isinstance(failure, (Unavailable, ServerError)) and passes(failure)


def _published(stream: CounterStream, increments: list[Increment]) -> Steps[list[Increment]]:
    """Publish increments, again as long as that makes sense; those that failed."""
    deadline = monotonic() + stream.config.deadline
    failed = increments
    try:
        while failed:
            yield from stream.publish(failed)
            failed = [each for each in failed if each.failure is not None]
            if monotonic() > deadline or not any(map(_passes, failed)):
                break
            yield Pause(_PAUSE)
    finally:
        for each in failed:
            stream.forget(each)
    return failed
