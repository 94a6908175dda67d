"""Judges what readers have seen of values that are counted up by one writer each.

Every write of a key stores the next number, or removes the key. Moments are of the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

UNKNOWN = float("inf")
"""When a write was acknowledged of which nobody knows whether it was, or will be, applied."""


class Write(NamedTuple):
    """One write of a key, or what removed its value behind everyone's back."""

    number: float
    began: float
    acked: float
    deleted: bool = False


class Run(NamedTuple):
    """Reads of one key that found the same number one after another; None for no value."""

    key: str
    number: int | None
    first_ended: float
    last_began: float
    last_ended: float


NEVER = Write(0, -UNKNOWN, -UNKNOWN, True)
"""What precedes every history: there was no value."""


class History:
    """All writes of a key, in their writer's order."""

    def __init__(self, writes: Iterable[Write]) -> None:
        self.writes = sorted([NEVER, *writes])
        self._by_number = {write.number: index for index, write in enumerate(self.writes)}
        self._followed = self._successors()
        self._deletes = [index for index, write in enumerate(self.writes) if write.deleted]

    def _successors(self) -> list[float]:
        """When the first write after each was acknowledged that was: it ends what came before."""
        ends = [UNKNOWN] * len(self.writes)
        for index in range(len(self.writes) - 2, -1, -1):
            following = self.writes[index + 1]
            ends[index] = ends[index + 1] if following.acked == UNKNOWN else following.acked
        return ends

    def staleness(self, run: Run) -> float:
        """Seconds since when the last read of a run was out of date; 0 or less for current.

        Raises AssertionError for what can never have been read.
        """
        if run.number is None:
            return self._staleness_of_nothing(run)
        assert run.number in self._by_number, f"{run} was never written"
        index = self._by_number[run.number]
        write = self.writes[index]
        assert not write.deleted, f"{run} had been removed when it was to be written"
        assert write.began <= run.last_ended, f"{run} was read before it was written"
        # What may be applied at any later time is current at any.
        return 0 if write.acked == UNKNOWN else run.last_began - self._followed[index]

    def _staleness_of_nothing(self, run: Run) -> float:
        begun = [each for each in self._deletes if self.writes[each].began <= run.last_ended]
        if any(self.writes[each].acked == UNKNOWN for each in begun):
            return 0
        return run.last_began - self._followed[begun[-1]]


class Verdict(NamedTuple):
    """What became of all reads."""

    runs: int
    stalest: float
    """Seconds."""
    worst: Run | None
    backwards: list[tuple[Run, Run]]
    """Pairs of which the second was read after the first, in one process, and is older."""


def judge(histories: Mapping[str, History], readers: Iterable[Sequence[Run]]) -> Verdict:
    """The reads of each of several processes. Raises AssertionError for what is plainly wrong."""
    stalest, worst, count = -UNKNOWN, None, 0
    backwards: list[tuple[Run, Run]] = []
    for runs in readers:
        count += len(runs)
        for run in runs:
            staleness = histories[run.key].staleness(run)
            if staleness > stalest:
                stalest, worst = staleness, run
        backwards += _backwards(histories, runs)
    return Verdict(count, stalest, worst, backwards)


def _backwards(histories: Mapping[str, History], runs: Sequence[Run]) -> Iterable[tuple[Run, Run]]:
    by_key: dict[str, list[Run]] = {}
    for run in runs:
        if run.number is not None:
            by_key.setdefault(run.key, []).append(run)
    for key, several in by_key.items():
        # What may be applied late may well be seen after what was written after it.
        doubtful = {each.number for each in histories[key].writes if each.acked == UNKNOWN}
        several.sort(key=lambda run: run.first_ended)
        newest: list[Run] = []
        for run in several:
            newer = not newest or (run.number or 0) > (newest[-1].number or 0)
            newest.append(run if newer else newest[-1])
        ends = [run.first_ended for run in several]
        for run in several:
            known = bisect.bisect_left(ends, run.last_began)
            if known and run.number not in doubtful:
                before = newest[known - 1]
                if (before.number or 0) > (run.number or 0):
                    yield before, run
