"""How long does a view wait for one operation, and how many do threads get done?

Not every combination is measured. Each operation is measured with values of 100 bytes, as most are,
get and set also with sizes at which copying takes time, get_many and set_many with 10 to 1,000
keys. Threads run one read, one write and one read-modify-write, since the other operations reach
the server in the same ways.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from django.core.cache import caches

from ..contestants import ASYNCIO, FILE, LOCMEM, Contestant
from ..lab import DIRECT, Lab
from ..measuring import Meter, expect, percentiles
from ..operations import Operation, operation
from ..results import Cell

NAME = "sync"
TITLE = "How long does a view wait for one operation?"

_LEAST_CALLS = 10
_FLOORS_DO = ("get", "miss", "set", "get_many", "set_many")
_FILE_DOES = ("get", "set", "set_many")


def cells(quick: bool) -> list[dict[str, Any]]:
    if quick:
        return [
            _cell("get"),
            _cell("set"),
            _cell("get_many", keys=100),
            _cell("set_many", keys=100),
            _cell("get", threads=8),
        ]
    return [
        *(_cell(operation) for operation in ("get", "miss", "set", "add", "incr", "delete")),
        *(_cell("get_many", keys=keys) for keys in (10, 100, 1000)),
        *(_cell("set_many", keys=keys) for keys in (10, 100, 1000)),
        *(_cell("get", size=size) for size in (10_000, 500_000)),
        *(_cell("set", size=size) for size in (10_000, 500_000)),
        *(_cell(operation, threads=8) for operation in ("get", "set", "incr")),
        _cell("get", threads=64),
    ]


def _cell(operation: str, *, size: int = 100, keys: int = 1, threads: int = 1) -> dict[str, Any]:
    return {"operation": operation, "size": size, "keys": keys, "threads": threads}


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    if contestant.floor:
        # With eight threads, each has a socket of its own, which no package can outdo.
        threads = (1, 8) if cell["operation"] == "get" else (1,)
        return cell["threads"] in threads and cell["operation"] in _FLOORS_DO
    if contestant.name == FILE:
        # Operations that the disk may slow down. The others are those of the memory bucket.
        return cell["threads"] == 1 and cell["operation"] in _FILE_DOES
    if contestant.name in (ASYNCIO, LOCMEM):
        # Shown for comparison: how they depend on sizes and numbers would show nothing new.
        return cell["size"] == 100 and cell["keys"] in (1, 100) and cell["threads"] <= 8
    return True


def measure(lab: Lab, contestant: Contestant, cell: Cell, route: str = DIRECT) -> dict[str, float]:
    if cell["threads"] == 1:
        # Every call is timed, so half the time gives enough of them.
        job, seconds = "single", lab.span / 2
    else:
        job, seconds = "threaded", lab.span
    return lab.call(contestant, f"{__name__}:{job}", route, seconds=seconds, **cell)


# In the worker -------------------------------------------------------------------------------


def single(cache: Any, *, seconds: float, threads: int, **cell: Any) -> dict[str, float]:
    """Time each call of one caller."""
    calling = _operation(cache, cell)
    calling.store()
    _time_calls(cache, calling, seconds / 5)
    meter, times = _time_calls(cache, calling, seconds)
    expect(calling.kept(), f"{calling.method} did not store its values")
    return {**percentiles(times), **meter.figures(len(times))}


def _operation(cache: Any, cell: Cell, caller: int = 0) -> Operation:
    return operation(cache, cell["operation"], size=cell["size"], keys=cell["keys"], caller=caller)


def _time_calls(cache: Any, calling: Operation, seconds: float) -> tuple[Meter, list[int]]:
    """Call for some seconds. Return the meter and the nanoseconds of each call."""
    call = getattr(cache, calling.method)
    right, clock = calling.right, time.perf_counter_ns
    meter = Meter()
    times: list[int] = []
    while meter.seconds < seconds or len(times) < _LEAST_CALLS:
        batch = calling.batch()
        end = clock() + int((seconds - meter.seconds) * 1e9)
        with meter:
            for arguments in batch:
                begun = clock()
                result = call(*arguments)
                ended = clock()
                times.append(ended - begun)
                expect(right(result), f"{calling.method} gave {result!r:.100}")
                if ended > end and len(times) >= _LEAST_CALLS:
                    break
    return meter, times


def threaded(cache: Any, *, seconds: float, threads: int, **cell: Any) -> dict[str, float]:
    """Measure callers in threads, each with its own cache object, as in Django."""
    callers = []
    for caller in range(threads):
        own = caches.create_connection("default")
        callers.append((own, _operation(own, cell, caller)))
    for _, calling in callers:
        calling.store()
    _call_in_threads(callers, seconds / 5)
    meter, calls = _call_in_threads(callers, seconds)
    for own, calling in callers:
        expect(calling.kept(), f"{calling.method} did not store its values")
        own.close()
    return meter.figures(calls)


def _call_in_threads(callers: list[tuple[Any, Operation]], seconds: float) -> tuple[Meter, int]:
    """Call in threads for some seconds. Return the meter and the number of calls.

    Each thread makes at least one call.
    """
    start = Barrier(len(callers) + 1)
    meter = Meter()

    def work(caller: tuple[Any, Operation]) -> int:
        own, calling = caller
        call, right, clock = getattr(own, calling.method), calling.right, time.perf_counter
        arguments = next(iter(calling.batch()))
        start.wait()
        calls, end = 0, clock() + seconds
        while not calls or clock() < end:
            result = call(*arguments)
            calls += 1
            if not right(result):
                raise ValueError(f"A wrong result: {calling.method} gave {result!r:.100}")
        return calls

    with ThreadPoolExecutor(len(callers)) as pool:
        working = [pool.submit(work, caller) for caller in callers]
        with meter:
            start.wait()
            calls = sum([each.result() for each in working])
    return meter, calls
