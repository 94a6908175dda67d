"""A limiter of one key with a clock of its own, and the log of what it lets through."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from django_nats.limits.algorithms import SLIDING, Usage
from django_nats.limits.rates import Rate


class Windows:
    """The counts of windows, which decide about hits as a Limit does with those of the server."""

    def __init__(self, rate: Rate, algorithm: str) -> None:
        self._rate = rate
        self._slides = algorithm == SLIDING
        self._counts: Counter[int] = Counter()
        self.log: list[float] = []
        """The time of each hit that was let through, as often as its cost says."""

    def usage(self, now: float) -> Usage:
        """Return what counts at a time. Times must not decrease."""
        number, elapsed = divmod(now, self._rate.seconds)
        before = self._counts[int(number) - 1] if self._slides else 0
        return Usage(self._rate, self._counts[int(number)], before, elapsed, self._slides)

    def hit(self, now: float, cost: int = 1) -> bool:
        """Count a hit if there is room for it."""
        if not self.usage(now).has_room(cost):
            return False
        self._counts[int(now // self._rate.seconds)] += cost
        self.log += [now] * cost
        return True


def since(log: Sequence[float], time: float) -> int:
    """Return how many times of a log are later than a time."""
    return len(log) - bisect_right(log, time)


def largest(log: Sequence[float], seconds: float) -> int:
    """Return the largest number of times that are less than some seconds apart."""
    most = first = 0
    for index, time in enumerate(log):
        while log[first] <= time - seconds:
            first += 1
        most = max(most, index - first + 1)
    return most
