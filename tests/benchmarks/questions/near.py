"""What do copies in the process save, what does their absence cost, and when is a change seen?

Hits are compared with LocMemCache, whose values are in the process too, and with caches that ask a
server. A first get reads a key of which the process has no copy. A change is made by another
process, and measured until a get of this process returns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..contestants import DJANGO_REDIS, LOCMEM, NEAR, OURS, VCACHE, Contestant
from ..lab import Lab
from ..measuring import TIMEOUT, Meter, expect, percentiles, run, value
from ..results import Cell

NAME = "near"
TITLE = "What does a near cache save?"

HIT, HITS, ASYNC_HIT, FIRST, CHANGE = "get", "get_many", "aget", "first get", "change"

_TAKE_PART = {
    HIT: (NEAR, LOCMEM, OURS, DJANGO_REDIS, VCACHE),
    HITS: (NEAR, LOCMEM, OURS, DJANGO_REDIS, VCACHE),
    ASYNC_HIT: (NEAR, LOCMEM, OURS, DJANGO_REDIS, VCACHE),
    FIRST: (NEAR, OURS),
    CHANGE: (NEAR,),
}
_STORED = value(100)
_KEYS = [f"flags:{number}" for number in range(100)]
_FIRSTS = 1000
_OPENING = 5.0
_BETWEEN = 0.002
_LOOK = 0.00005


def cells(quick: bool) -> list[dict[str, Any]]:
    return [{"operation": operation} for operation in _TAKE_PART]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name in _TAKE_PART[cell["operation"]]


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    operation = cell["operation"]
    if operation == FIRST:
        return _of_two(lab, contestant, "store", "first_gets", count=_FIRSTS)
    if operation == CHANGE:
        return _of_two(lab, contestant, "change", "see", seconds=lab.span * 2)
    return lab.call(contestant, f"{__name__}:hits", operation=operation, seconds=lab.span / 2)


def _of_two(
    lab: Lab, contestant: Contestant, theirs: str, ours: str, **arguments: Any
) -> dict[str, float]:
    """Run ``ours`` in one process after ``theirs`` in another, or at the same time."""
    lab.call(contestant, f"{__name__}:open_feed")
    other = lab.worker(contestant)
    try:
        other.call(f"{__name__}:open_feed", {})
        if theirs == "store":
            other.call(f"{__name__}:store", arguments)
            return lab.call(contestant, f"{__name__}:{ours}", **arguments)
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(lab.call, contestant, f"{__name__}:{ours}", **arguments)
            other.call(f"{__name__}:{theirs}", arguments)
            return seen.result()
    finally:
        other.end()


# In the worker -------------------------------------------------------------------------------


def open_feed(cache: Any) -> dict[str, float]:
    """Wait until gets are served from copies, if the cache has a near cache."""
    near = getattr(cache, "near", None)
    cache.set("opening", _STORED, TIMEOUT)
    end = time.monotonic() + _OPENING
    while near is not None:
        served = near.hits
        cache.get("opening")
        if near.hits > served:
            break
        expect(time.monotonic() < end, f"the feed is {near.state}")
    return {}


def hits(cache: Any, *, operation: str, seconds: float) -> dict[str, float]:
    """Time the reads of one caller, which reads the same keys repeatedly."""
    open_feed(cache)
    cache.set_many(dict.fromkeys(_KEYS, _STORED), TIMEOUT)
    cache.get_many(_KEYS)
    near = getattr(cache, "near", None)
    before = (near.hits, near.misses) if near is not None else None
    if operation == ASYNC_HIT:
        meter, times = run(_time_async(cache, seconds))
    elif operation == HITS:
        whole = dict.fromkeys(_KEYS, _STORED)
        meter, times = _time(lambda: cache.get_many(_KEYS), lambda found: found == whole, seconds)
    else:
        key = _KEYS[0]
        meter, times = _time(lambda: cache.get(key), lambda found: found == _STORED, seconds)
    if near is not None and before is not None:
        expect(near.hits - before[0] >= len(times), f"{near.hits - before[0]} hits")
        expect(near.misses == before[1], "a read went to the server")
    return {**percentiles(times), **meter.figures(len(times))}


def _time(
    call: Callable[[], Any], right: Callable[[Any], bool], seconds: float
) -> tuple[Meter, list[int]]:
    clock = time.perf_counter_ns
    for span in (seconds / 5, seconds):
        meter, times = Meter(), []
        end = clock() + int(span * 1e9)
        with meter:
            while not times or clock() < end:
                begun = clock()
                found = call()
                times.append(clock() - begun)
                expect(right(found), f"a hit gave {found!r:.100}")
    return meter, times


async def _time_async(cache: Any, seconds: float) -> tuple[Meter, list[int]]:
    clock, key = time.perf_counter_ns, _KEYS[0]
    await cache.aget(key)
    meter, times = Meter(), []
    end = clock() + int(seconds * 1e9)
    with meter:
        while len(times) < 2 or clock() < end:
            begun = clock()
            found = await cache.aget(key)
            times.append(clock() - begun)
            expect(found == _STORED, f"a hit gave {found!r:.100}")
    return meter, times


def store(cache: Any, *, count: int) -> dict[str, float]:
    """Store the values that another process reads for the first time."""
    expect(not cache.set_many(dict.fromkeys(_firsts(count), _STORED), TIMEOUT), "set_many")
    return {}


def first_gets(cache: Any, *, count: int) -> dict[str, float]:
    """Time the first get of each key."""
    clock = time.perf_counter_ns
    cache.get("opening")
    near = getattr(cache, "near", None)
    before = near.misses if near is not None else 0
    meter, times = Meter(), []
    with meter:
        for key in _firsts(count):
            begun = clock()
            found = cache.get(key)
            times.append(clock() - begun)
            expect(found == _STORED, f"a first get gave {found!r:.100}")
    if near is not None:
        expect(near.misses - before == count, f"{near.misses - before} misses")
    return {**percentiles(times), **meter.figures(count)}


def _firsts(count: int) -> Iterable[str]:
    return (f"first:{number}" for number in range(count))


def change(cache: Any, *, seconds: float) -> dict[str, float]:
    """Set a key to the current time every few milliseconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        cache.set("change", time.perf_counter_ns(), TIMEOUT)
        time.sleep(_BETWEEN)
    cache.set("change", 0, TIMEOUT)
    return {}


def see(cache: Any, *, seconds: float) -> dict[str, float]:
    """Read the key until its changes end. Measure the time from each change to its first read."""
    clock = time.perf_counter_ns  # one clock for all processes of a machine
    times: list[int] = []
    known = cache.get("change")
    end = time.monotonic() + seconds + _OPENING
    while time.monotonic() < end:
        found = cache.get("change")
        if found != known:
            if found == 0 and times:
                break
            if found and known is not None:
                times.append(clock() - found)
            known = found
        time.sleep(_LOOK)
    expect(len(times) > 1, "no change was seen")
    return {**percentiles(times), "rate": len(times) / seconds}
