"""How many increments of one key do several processes get done, and is none of them lost?

A contestant needs only set, get and incr.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.cache import caches

from ..contestants import COUNTER_FLOOR, FILE, Contestant
from ..forked import at_once
from ..measuring import expect
from ..results import Cell

if TYPE_CHECKING:
    from ..lab import Lab

NAME = "contention"
TITLE = "How fast can several processes count up one key?"

_KEY = "hot"


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"processes": processes} for processes in ([1, 8] if quick else [1, 2, 4, 8])]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    if contestant.floor:
        return contestant.name == COUNTER_FLOOR
    return contestant.server is not None and contestant.name != FILE


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    lab.call(contestant, f"{__name__}:begin")
    # In a new process, since not every driver can be used after a fork.
    figures = lab.call(contestant, f"{__name__}:count", fresh=True, seconds=lab.span, **cell)
    lab.call(contestant, f"{__name__}:confirm", total=figures.pop("total"))
    return figures


# In the worker -------------------------------------------------------------------------------


def begin(cache: Any) -> dict[str, Any]:
    cache.set(_KEY, 0, None)
    return {}


def confirm(cache: Any, *, total: int) -> dict[str, Any]:
    found = cache.get(_KEY)
    expect(found == total, f"{found} after {total} increments at once")
    return {}


def count(cache: Any, *, processes: int, seconds: float) -> dict[str, float]:
    """Increment a key in several processes at once. ``total`` is the number of increments."""
    return at_once(_increment, processes=processes, seconds=seconds)


def _increment() -> Callable[[], object]:
    return partial(caches.create_connection("default").incr, _KEY)
