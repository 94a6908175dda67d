"""The two algorithms: how much of a rate is used up, and when there is room again.

Time is cut into windows as long as the rate's time, and hits are counted in each. By "fixed", the
hits of the current window count. By "sliding", those of the window before count as well, weighted
by the part of it that is less than a window's length ago, as if they had come evenly. Pure
functions.
"""

from __future__ import annotations

from math import floor, inf
from typing import NamedTuple

from .rates import Rate

SLIDING, FIXED = "sliding", "fixed"
ALGORITHMS = (SLIDING, FIXED)

_TOLERANCE = 1e-9
"""How much rounding may make of nothing."""


class Usage(NamedTuple):
    """What one rate has counted for one key, ``elapsed`` seconds after its window began."""

    rate: Rate
    current: int
    """The hits of the current window."""
    previous: int
    """The hits of the window before; 0 by the fixed algorithm."""
    elapsed: float
    slides: bool
    """Whether this window's hits will count in the next one."""

    @property
    def used(self) -> float:
        """Return how many hits count now."""
        return self.current + self.previous * (1 - self.elapsed / self.rate.seconds)

    def has_room(self, cost: int) -> bool:
        """Return True if a hit of that cost is let through."""
        return self.used + cost <= self.rate.count + _TOLERANCE

    @property
    def remaining(self) -> int:
        """Return the largest cost that is let through now."""
        return max(0, floor(self.rate.count - self.used + _TOLERANCE))

    @property
    def reset_after(self) -> float:
        """Return the seconds until no hit counts any more."""
        left = self.rate.seconds - self.elapsed
        if self.current > 0 and self.slides:
            return left + self.rate.seconds
        return left if self.current > 0 or self.previous > 0 else 0.0

    def retry_after(self, cost: int) -> float:
        """Return the seconds until a hit of that cost is let through, if no other one counts.

        0 if it is let through now, and math.inf if it never will be.
        """
        count, seconds = self.rate
        if cost > count:
            return inf
        if self.has_room(cost):
            return 0.0
        left = seconds - self.elapsed
        room = count - self.current - cost
        if room >= 0:  # as soon as enough of the window before has passed
            return seconds * (1 - room / self.previous) - self.elapsed
        if not self.slides:
            return left
        return left + max(0.0, seconds * (1 - (count - cost) / self.current))
