"""What does a rate limit cost, when it lets through and when it refuses?

One hit is compared with the increment of a counter, for a key that is hit again and again, and for
keys that are each hit once. Processes that hit one key are compared with other packages. Limits are
high enough to let everything through, and windows last a day, so that none ends while it is
measured. What then counts is checked; `counted` is less than 100 % where hits at the same time are
lost. A refusal is compared with reading a value in the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, repeat
from typing import Any
from uuid import uuid4

from django.core.cache import caches

from ..contestants import (
    COUNTER,
    DJANGO_RATELIMIT,
    DRF_THROTTLE,
    LIMIT,
    LIMIT_FLOOR,
    LIMITS,
    LOCMEM,
    Contestant,
)
from ..forked import at_once
from ..lab import Lab
from ..limiting import DAY_S, FIXED, SLIDING, limiter
from ..measuring import Meter, expect, percentiles
from ..results import Cell

NAME = "limits"
TITLE = "What does a rate limit cost, when it lets through and when it refuses?"

HIT, REFUSAL = "hit", "refusal"
ONE, NEW = "one key", "new keys"
_SEVERAL = 8

_MANY = 10**9
_RATES = ((_MANY, DAY_S), (_MANY, 3600))
_NONE_LEFT = ((1, DAY_S),)

_REFUSING = (LIMIT, LOCMEM, DJANGO_RATELIMIT, DRF_THROTTLE, LIMITS)
_BY_ALGORITHM = {
    SLIDING: (LIMIT, COUNTER, LIMIT_FLOOR, DRF_THROTTLE, LIMITS),  # DRF's has a log of its own
    FIXED: (LIMIT, COUNTER, LIMIT_FLOOR, DJANGO_RATELIMIT, LIMITS),
}
_SEVERAL_RATES = (LIMIT, LIMIT_FLOOR)


def cells(quick: bool) -> list[dict[str, Any]]:
    one, several = {"rates": 1, "processes": 1}, {"rates": 1, "processes": _SEVERAL}
    two = {"rates": 2, "processes": 1}
    kinds = [(keys, algorithm) for keys in (ONE, NEW) for algorithm in (SLIDING, FIXED)]
    return [
        *({"operation": HIT, "keys": keys, "algorithm": each, **one} for keys, each in kinds),
        *({"operation": HIT, "keys": keys, "algorithm": SLIDING, **two} for keys in (ONE, NEW)),
        *({"operation": HIT, "keys": ONE, "algorithm": each, **several} for each in _BY_ALGORITHM),
        {"operation": REFUSAL},
    ]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    if cell["operation"] == REFUSAL:
        return contestant.name in _REFUSING
    if cell["rates"] > 1:
        return contestant.name in _SEVERAL_RATES
    return contestant.name in _BY_ALGORITHM[cell["algorithm"]]


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    job = partial(lab.call, contestant, name=contestant.name)
    if cell["operation"] == REFUSAL:
        return job(f"{__name__}:refusals", seconds=lab.span)
    algorithm = cell["algorithm"]
    if cell["processes"] == 1:
        kind = {"keys": cell["keys"], "algorithm": algorithm, "rates": cell["rates"]}
        return job(f"{__name__}:hits", seconds=lab.span, **kind)
    kind = {"key": uuid4().hex, "algorithm": algorithm}
    # In a new process, since not every driver can be used after a fork.
    figures = job(
        f"{__name__}:hits_at_once",
        fresh=True,
        processes=cell["processes"],
        seconds=lab.span,
        **kind,
    )
    total = figures.pop("total")
    return figures | job(f"{__name__}:confirm", total=total, **kind)


# In the worker -------------------------------------------------------------------------------


def hits(
    cache: Any, *, name: str, algorithm: str, keys: str, rates: int, seconds: float
) -> dict[str, float]:
    """Time the hits of one caller."""
    limited = limiter(name, cache, _RATES[:rates], algorithm)
    key = uuid4().hex
    new = (f"{key}:{number}" for number in count())
    each = repeat(key) if keys == ONE else new
    meter, times, total = _time(limited.hit, each, seconds)
    if keys == ONE:
        counted = limited.counted(key)
        expect(counted == total, f"{counted} after {total} hits")
    else:
        expect(limited.counted(f"{key}:0") == 1, "a first hit was not counted once")
    return {**percentiles(times), **meter.figures(len(times))}


def _time(
    hit: Callable[[str], object], keys: Iterator[str], seconds: float, *, through: bool = True
) -> tuple[Meter, list[int], int]:
    """Return the meter and the times of hits, and the number of all hits."""
    clock = time.perf_counter_ns
    total = 0
    for span in (seconds / 5, seconds):
        meter, times = Meter(), []
        end = clock() + int(span * 1e9)
        with meter:
            while len(times) < 2 or clock() < end:
                key = next(keys)
                begun = clock()
                found = hit(key)
                times.append(clock() - begun)
                if bool(found) is not through:
                    expect(False, f"a hit gave {found!r:.100}")
        total += len(times)
    return meter, times, total


def refusals(cache: Any, *, name: str, seconds: float) -> dict[str, float]:
    """Time the refusals of a key that has no hits left."""
    limited = limiter(name, cache, _NONE_LEFT, SLIDING)
    key = uuid4().hex
    limited.hit(key)
    expect(limited.counted(key) == 1, "the hit that uses up the limit was not counted")
    meter, times, _ = _time(limited.hit, repeat(key), seconds / 2, through=False)
    return {**percentiles(times), **meter.figures(len(times))}


def hits_at_once(
    cache: Any, *, name: str, algorithm: str, key: str, processes: int, seconds: float
) -> dict[str, float]:
    """Hit a key in several processes at once. ``total`` is the number of hits."""
    make = partial(_hitting, name, algorithm, key)
    return at_once(make, processes=processes, seconds=seconds)


def _hitting(name: str, algorithm: str, key: str) -> Callable[[], object]:
    limited = limiter(name, caches.create_connection("default"), _RATES[:1], algorithm)

    def hit() -> None:
        if not limited.hit(key):
            expect(False, "a hit was refused")

    return hit


def confirm(cache: Any, *, name: str, algorithm: str, key: str, total: int) -> dict[str, float]:
    """Return which part of the hits counts. All must, but with DRF's throttle."""
    counted = limiter(name, cache, _RATES[:1], algorithm).counted(key)
    expect(counted == total or name == DRF_THROTTLE, f"{counted} after {total} hits at once")
    return {"counted_percent": counted / total * 100}
