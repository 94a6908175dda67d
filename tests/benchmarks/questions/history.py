"""What does a counter's history cost, once each new increment pushes an old one out?

Many counters are incremented repeatedly, as write-behind does it: many at a time, so that most of
the time is the server's. HISTORY has its default: the last increment of each counter in memory, the
last eight on file. Each contestant has its own server. There is only one round, since on file it
makes a million increments.
"""

from __future__ import annotations

from typing import Any

from django_nats.counters import counters

from ..contestants import COUNTER, FILE_COUNTER, Contestant
from ..lab import JobFailed, Lab
from ..measuring import Meter, expect
from ..results import Cell
from ..servers import start

NAME = "history"
TITLE = "What does a counter's history cost?"
ONCE = True

_PAST = 2
"""How many times each counter is incremented after its history is full."""
_AT_ONCE = 10_000


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"names": 5_000 if quick else 100_000}]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name in (COUNTER, FILE_COUNTER)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    assert contestant.server is not None
    with start([contestant.server]) as (servers, left_out):
        if left_out:
            raise JobFailed(left_out[0].why)
        with Lab(servers, span=lab.span, quick=lab.quick) as own:
            return own.call(contestant, f"{__name__}:count", **cell)


# In the worker -------------------------------------------------------------------------------


def count(cache: Any, *, names: int) -> dict[str, float]:
    """Increment all counters before their histories are full, and after."""
    cache.set("opened", 0, None)
    history = counters.settings.stream.history
    before, past = _count(names, history), _count(names, _PAST)
    expected = dict.fromkeys(map(_name, range(names)), history + _PAST)
    expect(counters.get_many(expected) == expected, "not each counter has all its increments")
    figures = {"kept": past["rate"] / before["rate"]}
    for part, found in (("before", before), ("past", past)):
        figures |= {f"{part}.{name}": figure for name, figure in found.items()}
    return figures


def _count(names: int, times: int) -> dict[str, float]:
    """Increment each of several counters a number of times."""
    meter = Meter()
    with meter:
        for _ in range(times):
            for first in range(0, names, _AT_ONCE):
                for number in range(first, min(first + _AT_ONCE, names)):
                    counters.incr_later(_name(number))
                counters.flush()
    return meter.figures(times * names)


def _name(number: int) -> str:
    return f"page.{number}"
