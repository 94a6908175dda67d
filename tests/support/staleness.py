"""Verdicts on reads of keys, each of which is incremented by one writer.

Every write of a key stores the next number or deletes the key. Times are those of the monotonic
clock, which all processes of a machine share.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

UNKNOWN = float("inf")
"""The time of acknowledgement of a write whose outcome is unknown."""


class Write(NamedTuple):
    """One write of a key, or an event that removed its value without a delete."""

    number: float
    began: float
    acked: float
    deleted: bool = False


class Run(NamedTuple):
    """Successive reads of one key that found the same number, or None for no value."""

    key: str
    number: int | None
    first_ended: float
    last_began: float
    last_ended: float


NEVER = Write(0, -UNKNOWN, -UNKNOWN, True)
"""The start of every history, before which there was no value."""


class History:
    """All writes of a key, in their writer's order."""

    def __init__(self, writes: Iterable[Write]) -> None:
        self.writes = sorted([NEVER, *writes])
        self._by_number = {write.number: index for index, write in enumerate(self.writes)}
        self._overwritten = self._successors()
        self._deletes = [index for index, write in enumerate(self.writes) if write.deleted]

    def _successors(self) -> list[float]:
        """Return, for each write, when the next acknowledged write replaced it."""
        ends = [UNKNOWN] * len(self.writes)
        for index in range(len(self.writes) - 2, -1, -1):
            following = self.writes[index + 1]
            ends[index] = ends[index + 1] if following.acked == UNKNOWN else following.acked
        return ends

    def staleness(self, run: Run) -> float:
        """Return for how many seconds the last read of a run was out of date.

        Return 0 or less if it was current. Raise AssertionError if the value cannot have been read.
        """
        if run.number is None:
            return self._staleness_of_nothing(run)
        assert run.number in self._by_number, f"{run} was never written"
        index = self._by_number[run.number]
        write = self.writes[index]
        assert not write.deleted, f"the value of {run} was removed before it could be written"
        assert write.began <= run.last_ended, f"{run} was read before it was written"
        # A write that may be applied at any later time can be current at any time.
        return 0 if write.acked == UNKNOWN else run.last_began - self._overwritten[index]

    def _staleness_of_nothing(self, run: Run) -> float:
        begun = [each for each in self._deletes if self.writes[each].began <= run.last_ended]
        if any(self.writes[each].acked == UNKNOWN for each in begun):
            return 0
        return run.last_began - self._overwritten[begun[-1]]


class Verdict(NamedTuple):
    """The judgement of all reads."""

    runs: int
    stalest: float
    """Seconds."""
    worst: Run | None
    backwards: list[tuple[Run, Run]]
    """Pairs of reads in one process, of which the later one found the older value."""


def judge(histories: Mapping[str, History], readers: Iterable[Sequence[Run]]) -> Verdict:
    """Judge the reads of several processes. Raise AssertionError for a value never written."""
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
        # A write that is applied late may be seen after the writes that followed it.
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
