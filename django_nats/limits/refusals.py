"""What was refused a moment ago, and is refused again without asking the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..realtime import monotonic
from .algorithms import Usage
from .decision import Decision
from .keys import key_token
from .memory import Memory
from .rates import Rate

_LONGEST_KEY = 128
"""Characters of a key that is remembered as it is. Keys come from requests, and may be huge."""


class _Refusal(NamedTuple):
    """The refusal of one hit, and when it was refused, on the monotonic clock."""

    known_at: float
    rates: Sequence[Rate]
    """All rates of the hit, which may be others at the next one."""
    cost: int
    usages: Sequence[Usage]
    """What the rates that refused had counted."""
    rate: Rate | None
    remaining: int | None
    reset_after: float
    retry_after: float


class Refusals:
    """The latest refusals of one limit, by the text of their keys."""

    def __init__(self) -> None:
        self._memory: Memory[_Refusal] = Memory()

    def note(
        self,
        key: str,
        cost: int,
        rates: Sequence[Rate],
        usages: Sequence[Usage],
        decision: Decision,
    ) -> None:
        """Remember that a hit was refused, and what the rates that refused it had counted."""
        wait = decision.retry_after
        refusal = _Refusal(
            monotonic(),
            rates,
            cost,
            usages,
            decision.rate,
            decision.remaining,
            decision.reset_after,
            wait,
        )
        self._memory.note(_name(key), refusal, wait)

    def find(self, key: str, cost: int, rates: Sequence[Rate]) -> Decision | None:
        """Return the refusal of a hit, or None if the server must be asked.

        The server is asked about a cost for which there may be room, and if the rates are not
        those that have refused.
        """
        found = self._memory.find(_name(key))
        if found is None or found.rates != rates:
            return None
        passed = monotonic() - found.known_at
        if cost == found.cost:
            return Decision(
                False,
                found.rate,
                found.remaining,
                max(0.0, found.reset_after - passed),
                max(0.0, found.retry_after - passed),
            )
        usages = [each._replace(elapsed=each.elapsed + passed) for each in found.usages]
        if any(each.elapsed >= each.rate.seconds for each in usages):
            return None  # a new window has begun
        refusing = [each for each in usages if not each.has_room(cost)]
        return refusal(refusing, cost) if refusing else None

    def forget(self, key: str) -> None:
        """Forget the refusal of a key."""
        self._memory.forget(_name(key))


def _name(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else key_token(key, readable=False)


def refusal(refusing: Sequence[Usage], cost: int) -> Decision:
    """Return the decision for a hit that some rates refuse. It waits for the last of them."""
    waits = [each.retry_after(cost) for each in refusing]
    wait = max(waits)
    last = refusing[waits.index(wait)]
    return Decision(False, last.rate, last.remaining, last.reset_after, wait)
