"""Give counters the totals they had elsewhere, safely while others count, and safe to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from django.core.management.base import CommandError

from ...client.counters.failures import passes
from ...client.counters.publishing import Increment
from ...client.counters.stream import CounterStream
from ...client.protocol.steps import Pause, Steps
from ...counters.collection import Counters
from ...exceptions import ReadOnlyCounter, ServerError, Unavailable
from ...printable import counted, duration
from ...realtime import monotonic
from ..progress import Progress
from .asking import BATCH, ask

ALREADY_SEEDED = "Earlier totals may be seeded already. It does no harm to seed them again."
_RETRY_PAUSE_S = 0.2


class Total(NamedTuple):
    """The total that a counter begins with."""

    subject: str
    value: int
    origin: str
    """Where the total comes from, for messages."""


class Seeding:
    """The seeding of an alias's counters, with counts of the outcomes.

    Totals are sent as increments, so that what others count meanwhile is not lost.
    """

    def __init__(self, alias: str, *, overwrite: bool) -> None:
        """Prepare to seed. Raises ReadOnlyCounter if the alias is a sum of SOURCES.

        With ``overwrite``, counters that have a value are brought to their total, too.
        """
        self._alias = alias
        self._overwrite = overwrite
        self.seeded = self.overwritten = self.correct = self.left_alone = 0
        self.unreadable: list[str] = []
        """Counters that are left alone, since what is stored for them is not a total."""
        self.handled = 0
        """How many totals were read and sent, whatever the outcome."""
        config = Counters(alias).settings.stream
        if config.sources:
            raise ReadOnlyCounter(
                f'NATS_COUNTERS["{alias}"] is the sum of its SOURCES: seed one of those.'
            )

    def seed(self, totals: Iterator[Total], progress: Progress) -> None:
        """Seed the totals in batches. Each batch is read and written in two round trips.

        Raises CommandError if a total may not have been seeded.
        """
        while batch := list(islice(totals, BATCH)):
            self._seed_batch(batch)
            progress.advance(len(batch))

    def _seed_batch(self, batch: Sequence[Total]) -> None:
        stored = ask(self._alias, CounterStream.stored, [each.subject for each in batch])
        missing: dict[str, int] = {}
        differing: dict[str, int] = {}
        for subject, value, _ in batch:
            before = stored.get(subject)
            if subject in stored and before is None:
                self.unreadable.append(subject)
            elif before == value or (before is None and value == 0):
                self.correct += 1
            elif before is None:
                missing[subject] = value
            elif self._overwrite:
                differing[subject] = value - before
            else:
                self.left_alone += 1
        self.handled += len(batch)
        ask(self._alias, _publish, missing, differing)
        self.seeded += len(missing)
        self.overwritten += len(differing)


def once(totals: Iterable[Total]) -> Iterator[Total]:
    """Yield each total once.

    Raises CommandError if there are two totals of different origins for one counter.
    """
    origins: dict[str, str] = {}
    for total in totals:
        origin = origins.get(total.subject)
        if origin is None:
            origins[total.subject] = total.origin
            yield total
        elif origin != total.origin:  # the origins are equal if Redis's SCAN returns a key twice
            raise CommandError(
                f"{origin} and {total.origin} are for the same counter, {total.subject}. "
                f"{ALREADY_SEEDED}"
            )


def _publish(
    stream: CounterStream, missing: dict[str, int], differing: dict[str, int]
) -> Steps[None]:
    # The id is the same in every run. So the server takes only one of two increments, if two runs
    # go on at once, or an earlier run has left an increment on its way.
    increments = [
        stream.publishing.increment(subject, value, f"seed.{subject}")
        for subject, value in missing.items()
    ]
    increments += [
        stream.publishing.increment(subject, delta) for subject, delta in differing.items()
    ]
    recognised = stream.increments.recognised
    failed = yield from _publish_all(stream, increments)
    if failed:
        raise CommandError(
            f"{len(failed):,} of {counted(len(increments), 'counter')} of a batch may not have "
            f"been seeded, {failed[0].counter} among them: {failed[0].failure} Run the command "
            "again: it leaves alone those that were seeded."
        )
    if stream.increments.recognised == recognised:
        return
    # The server keeps a seed's id even if the counter is reset. Then it has dropped the new seed as
    # a repetition.
    stored = yield from stream.stored(list(missing))
    if lost := missing.keys() - stored.keys():
        raise CommandError(
            f"{counted(len(lost), 'counter')} cannot be seeded yet, {min(lost)} among them: seeded "
            "and reset a moment ago. Run the command again in "
            f"{duration(3 * stream.config.deadline)}."
        )


def _is_temporary(increment: Increment) -> bool:
    failure = increment.failure
    return isinstance(failure, (Unavailable, ServerError)) and passes(failure)


def _publish_all(stream: CounterStream, increments: list[Increment]) -> Steps[list[Increment]]:
    """Publish increments, and return those that failed.

    Failures that may pass are tried again for DEADLINE.
    """
    deadline = monotonic() + stream.config.deadline
    failed = increments
    try:
        while failed:
            yield from stream.publishing.publish(failed)
            failed = [each for each in failed if each.failure is not None]
            if monotonic() > deadline or not any(map(_is_temporary, failed)):
                break
            yield Pause(_RETRY_PAUSE_S)
    finally:
        for each in failed:
            stream.publishing.forget(each)
    return failed
