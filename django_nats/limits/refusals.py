"""What was refused a moment ago, and is refused again without asking the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..realtime import monotonic
from .algorithms import Usage
from .decision import Decision
from .rates import Rate

LONGEST_S = 1.0
"""How long a refusal counts: for so long this process does not notice a reset by another one."""
_GENERATION = 2048
"""Keys that are remembered at least, and at most twice as many."""


class _Refusal(NamedTuple):
    """The refusal of one hit. Times are on the monotonic clock."""

    until: float
    cost: int
    usages: Sequence[Usage]
    """What the rates that refused had counted."""
    known_at: float
    rate: Rate
    remaining: int
    reset_at: float
    retry_at: float


class Refusals:
    """The latest refusals of one limit, by the text of their keys.

    Any thread may use it. A refusal that is lost to a race costs a question to the server.
    """

    def __init__(self) -> None:
        # In two generations: a flood of keys drops the older half, without sorting.
        self._young: dict[str, _Refusal] = {}
        self._old: dict[str, _Refusal] = {}

    def note(self, key: str, cost: int, usages: Sequence[Usage], decision: Decision) -> None:
        """Remember that a hit was refused, and what the rates that refused it had counted."""
        if decision.rate is None or decision.remaining is None:
            return
        now = monotonic()
        until = now + min(LONGEST_S, decision.retry_after)
        reset_at, retry_at = now + decision.reset_after, now + decision.retry_after
        self._young[key] = _Refusal(
            until, cost, usages, now, decision.rate, decision.remaining, reset_at, retry_at
        )
        if len(self._young) > _GENERATION:
            self._old, self._young = self._young, {}

    def find(self, key: str, cost: int) -> Decision | None:
        """Return the refusal of a hit, or None if the server must be asked.

        The server is asked about a cost for which there may be room.
        """
        found = self._young.get(key) or self._old.get(key)
        if found is None:
            return None
        now = monotonic()
        if now >= found.until:
            self.forget(key)
            return None
        if cost == found.cost:
            return Decision(
                False, found.rate, found.remaining, found.reset_at - now, found.retry_at - now
            )
        passed = now - found.known_at
        usages = [each._replace(elapsed=each.elapsed + passed) for each in found.usages]
        if any(each.elapsed >= each.rate.seconds for each in usages):
            return None  # a new window has begun
        refusing = [each for each in usages if not each.has_room(cost)]
        return refusal(refusing, cost) if refusing else None

    def forget(self, key: str) -> None:
        """Forget the refusal of a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)


def refusal(refusing: Sequence[Usage], cost: int) -> Decision:
    """Return the decision for a hit that some rates refuse. It waits for the last of them."""
    waits = [each.retry_after(cost) for each in refusing]
    wait = max(waits)
    last = refusing[waits.index(wait)]
    return Decision(False, last.rate, last.remaining, last.reset_after, wait)
