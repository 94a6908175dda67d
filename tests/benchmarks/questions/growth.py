"""How does each cost grow with the number of entries, and how much memory does an entry take?

Each contestant has its own server, which is started for each number of entries: otherwise memory
that an earlier bucket had used would be available to the next one, whose entries would seem to take
less. There is only one round, since it takes long to store a million entries. Within it, each
operation is repeated. Names of figures begin with their operation: ``get.p50_us``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..contestants import DJANGO_REDIS, FILE, OURS, Contestant
from ..lab import JobFailed, Lab
from ..measuring import Meter, expect, percentiles, server_memory, value
from ..results import Cell
from ..servers import start

NAME = "growth"
TITLE = "How does each cost grow with the number of entries?"
ONCE = True

_SINGLE = ("get", "get_many", "overwrite", "delete", "set_")
_JOBS = ("fill", *_SINGLE, "iter_keys", "expire", "clear")
_STORED = value(100)
_SECONDS = 3600  # longer than a run, so that no entry expires during it
_BATCH = 10_000
_GRACE = 0.5
_ENOUGH = 10_000  # entries: with fewer, memory that the server takes once would count


def cells(quick: bool) -> list[dict[str, Any]]:
    return [
        {"entries": entries} for entries in ([10**3, 10**4] if quick else [10**3, 10**5, 10**6])
    ]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    return contestant.name in (OURS, FILE, DJANGO_REDIS)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    assert contestant.server is not None
    with start([contestant.server]) as (servers, left_out):
        if left_out:
            raise JobFailed(left_out[0].why)
        with Lab(servers, span=lab.span, quick=lab.quick) as own:
            figures = {}
            for job in _JOBS:
                arguments: dict[str, Any] = dict(cell)
                if job in _SINGLE:
                    arguments["calls"] = 100 if lab.quick else 500
                found = own.call(contestant, f"{__name__}:{job}", **arguments)
                if job == "iter_keys":
                    found["concurrent_ms"] = _slowest_concurrent_set(own, contestant)
                for name, figure in found.items():
                    figures[f"{job.removesuffix('_')}.{name}"] = figure
            return figures


def _slowest_concurrent_set(lab: Lab, contestant: Contestant) -> float:
    """Return the milliseconds of another process's slowest set while keys are listed."""
    worker = lab.worker(contestant)
    try:
        worker.call(f"{__name__}:set_repeatedly", {"seconds": 0.0})
        with ThreadPoolExecutor(1) as pool:
            sets = pool.submit(worker.call, f"{__name__}:set_repeatedly", {"seconds": lab.span})
            lab.call(contestant, f"{__name__}:iter_keys_for", seconds=lab.span)
            return float(sets.result()["ms"])
    finally:
        worker.end()


# In the worker -------------------------------------------------------------------------------


def fill(cache: Any, *, entries: int) -> dict[str, float]:
    """Store all entries. Measure their size: resident memory, and the server's own report."""
    cache.get(_key(0))
    resident, (_, reported) = server_memory(), _reported_size(cache)
    meter = Meter()
    with meter:
        for first in range(0, entries, _BATCH):
            keys = map(_key, range(first, min(first + _BATCH, entries)))
            expect(not cache.set_many(dict.fromkeys(keys, _STORED), _SECONDS), "set_many")
    found, reported_now = _reported_size(cache)
    expect(found == entries, f"{found} entries instead of {entries}")
    figures = meter.figures(entries)
    if entries >= _ENOUGH:
        figures["resident_bytes"] = (server_memory() - resident) / entries
        figures["reported_bytes"] = (reported_now - reported) / entries
    return figures


def get(cache: Any, *, entries: int, calls: int) -> dict[str, float]:
    keys = _some_keys(entries, calls)
    return _timed(cache.get, [(key,) for key in keys], lambda result: result == _STORED)


def get_many(cache: Any, *, entries: int, calls: int) -> dict[str, float]:
    chosen = [(_some_keys(entries, 100, seed),) for seed in range(calls // 10)]
    return _timed(cache.get_many, chosen, lambda result: len(result) == 100)


def overwrite(cache: Any, *, entries: int, calls: int) -> dict[str, float]:
    return _timed_set(cache, _some_keys(entries, calls))


def delete(cache: Any, *, entries: int, calls: int) -> dict[str, float]:
    keys = _some_keys(entries, calls, seed=1)
    return _timed(cache.delete, [(key,) for key in keys], bool)


def set_(cache: Any, *, entries: int, calls: int) -> dict[str, float]:
    """Set the deleted keys again, which restores the number of entries."""
    return _timed_set(cache, _some_keys(entries, calls, seed=1))


def iter_keys(cache: Any, *, entries: int) -> dict[str, float]:
    """Measure the milliseconds until the first key and until the last one."""
    begun = time.perf_counter()
    keys = cache.iter_keys("*", itersize=1000)
    next(keys)
    first = time.perf_counter() - begun
    seen = 1 + sum(1 for _ in keys)
    whole = time.perf_counter() - begun
    expect(seen >= entries, f"{seen} of {entries} keys")  # Redis may list a key twice
    return {"first_ms": first * 1000, "ms": whole * 1000}


def iter_keys_for(cache: Any, *, seconds: float) -> dict[str, Any]:
    """List all keys repeatedly, for some seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in cache.iter_keys("*", itersize=1000):
            if time.perf_counter() > end:
                break
    return {}


def set_repeatedly(cache: Any, *, seconds: float) -> dict[str, float]:
    """Set a key every millisecond, for some seconds. Measure the slowest set."""
    slowest = 0.0
    end = time.perf_counter() + seconds
    while not slowest or time.perf_counter() < end:
        begun = time.perf_counter()
        cache.set("concurrent", _STORED, _SECONDS)
        slowest = max(slowest, time.perf_counter() - begun)
        time.sleep(0.001)
    return {"ms": slowest * 1000}


def expire(cache: Any, *, entries: int) -> dict[str, float]:
    """Measure how many expired entries the server has removed half a second later.

    This matters only for memory: no contestant returns an expired value.
    """
    before, _ = _reported_size(cache)
    count = min(entries, _BATCH)
    brief = [f"brief:{number}" for number in range(count)]
    cache.set_many(dict.fromkeys(brief, _STORED), 1)
    meter = Meter()
    with meter:
        time.sleep(1 + _GRACE)
    left = _reported_size(cache)[0] - before
    expect(not cache.get_many(brief[:100]), "an expired value was read")
    figures = {"gone_percent": (count - left) / count * 100}
    if left < count / 2:  # otherwise most of the time was spent on other work
        figures["server_us"] = meter.figures(count - left)["server_us"]
    return figures


def clear(cache: Any, *, entries: int) -> dict[str, float]:
    begun = time.perf_counter()
    cache.clear()
    taken = time.perf_counter() - begun
    expect(cache.get(_key(0)) is None, "a value was read after clear")
    return {"ms": taken * 1000}


def _key(number: int) -> str:
    return f"user:{number}"


def _some_keys(entries: int, count: int, seed: int = 0) -> list[str]:
    return [_key(number) for number in random.Random(seed).sample(range(entries), count)]


def _timed_set(cache: Any, keys: Iterable[str]) -> dict[str, float]:
    arguments = [(key, _STORED, _SECONDS) for key in keys]
    return _timed(cache.set, arguments, lambda result: result in (None, True))


def _timed(
    call: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], right: Callable[[Any], bool]
) -> dict[str, float]:
    clock = time.perf_counter_ns
    times = []
    for each in arguments:
        begun = clock()
        result = call(*each)
        times.append(clock() - begun)
        expect(right(result), call.__name__)
    return percentiles(times)


def _reported_size(cache: Any) -> tuple[int, int]:
    """Return the number of entries and their size in bytes, as reported by the server."""
    if hasattr(cache, "stats"):
        stats = cache.stats()
        return stats.entries, stats.bytes
    redis = cache.client.get_client()
    return redis.dbsize(), redis.info("memory")["used_memory"]
