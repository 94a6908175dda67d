"""How many operations do coroutines get done, and over how many connections?

The callers behave like requests under Django's ASGI handler: each has its own cache object and, for
backends that run their work in threads, its own thread. The most frequent read is measured with 1,
100 and 1,000 callers, the most frequent write with 1 and 100. The other operations have 100
callers, as a busy process has. Connections and memory are measured for get, in a new process.

Tasks of one program, such as a script or a consumer, are measured as well. They share a cache
object, and the thread in which other backends run their work.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import psutil
from asgiref.sync import ThreadSensitiveContext
from django.core.cache import caches

from ..contestants import ASYNCIO, COUNTER, FILE, FILE_COUNTER, LOCMEM, Contestant
from ..lab import DIRECT, Lab
from ..measuring import Meter, expect, run
from ..operations import TASKS, Operation, operation
from ..results import Cell
from .requests import peak_bytes

NAME = "async"
TITLE = "How many operations do coroutines get done?"


def cells(quick: bool) -> list[dict[str, Any]]:
    if quick:
        return [
            _cell("get", 100),
            _tasks("get", 100),
            _cell("get", 1),
            _cell("set", 100),
            _cell("incr", 100),
        ]
    return [
        *(_cell("get", concurrency) for concurrency in (1, 100, 1000)),
        _tasks("get", 100),
        *(_cell("set", concurrency) for concurrency in (1, 100)),
        *(_cell(operation, 100) for operation in ("miss", "incr")),
        *(_cell(operation, 100, keys=10) for operation in ("get_many", "set_many")),
        _cell("get_many", 1, keys=100),
        _cell("get", 100, size=10_000),
    ]


def _cell(operation: str, concurrency: int, *, size: int = 100, keys: int = 1) -> dict[str, Any]:
    return {"operation": operation, "size": size, "keys": keys, "concurrency": concurrency}


def _tasks(operation: str, concurrency: int) -> dict[str, Any]:
    return {**_cell(operation, concurrency), "callers": TASKS}


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    if contestant.name in (ASYNCIO, LOCMEM):
        # Shown for comparison, as in sync.
        return cell["operation"] in ("get", "set") and cell["size"] == 100
    if contestant.name in (COUNTER, FILE_COUNTER):
        return bool(cell["operation"] == "incr")
    return contestant.asynchronous and not contestant.floor and contestant.name != FILE


def measure(lab: Lab, contestant: Contestant, cell: Cell, route: str = DIRECT) -> dict[str, float]:
    job = f"{__name__}:concurrent"
    server = lab.server(contestant)
    if server is None or cell["operation"] != "get" or cell["size"] != 100:
        return lab.call(contestant, job, route, seconds=lab.span, **cell)
    # Another process stores the values, so that the new process does only what is measured.
    lab.call(contestant, f"{__name__}:store", route, **cell)
    before = server.connections()
    figures = lab.call(contestant, job, route, fresh=True, seconds=lab.span, stored=True, **cell)
    return {**figures, "connections": server.connections() - before}


# In the worker -------------------------------------------------------------------------------


def store(cache: Any, **cell: Any) -> dict[str, Any]:
    for calling in _operations(cache, cell):
        calling.store()
    return {}


def concurrent(
    cache: Any, *, seconds: float, stored: bool = False, **cell: Any
) -> dict[str, float]:
    """Measure the concurrent callers of a cell.

    The figures have peak_mb if the values are already stored: otherwise storing them takes memory.
    """
    if not stored:
        store(cache, **cell)
    callers = _operations(cache, cell)
    shared = cache if cell.get("callers") == TASKS else None
    meter, calls = run(_measure(callers, seconds, shared))
    figures = meter.figures(calls)
    if stored:
        figures["peak_mb"] = _peak_mb()
    expect(callers[-1].kept(), f"{cell['operation']} did not store its values")
    return figures


def _operations(cache: Any, cell: Cell) -> list[Operation]:
    name, size, keys = cell["operation"], cell["size"], cell["keys"]
    return [
        operation(cache, name, size=size, keys=keys, caller=caller)
        for caller in range(cell["concurrency"])
    ]


async def _measure(
    callers: list[Operation], seconds: float, shared: Any = None
) -> tuple[Meter, int]:
    """Measure the callers for some seconds. Return the meter and the number of calls.

    If there is no shared cache, each caller is a request with its own cache and thread.
    """
    start, finish = Meeting(len(callers) + 1), Meeting(len(callers) + 1)
    meter = Meter()

    async def keep_time() -> int:
        await start.join()
        with meter:
            await finish.join()
        return 0

    async def caller(calling: Operation) -> int:
        async with ThreadSensitiveContext() if shared is None else nullcontext():
            own = shared or caches.create_connection("default")
            await _call(own, calling, seconds / 5)
            await start.join()
            calls = await _call(own, calling, seconds)
            await finish.join()
            if shared is None:
                await own.aclose()
        return calls

    counts = await asyncio.gather(keep_time(), *map(caller, callers))
    return meter, sum(counts)


async def _call(own: Any, calling: Operation, seconds: float) -> int:
    """Call repeatedly for some seconds, but at least once. Return the number of calls."""
    call, right, clock = getattr(own, f"a{calling.method}"), calling.right, time.perf_counter
    arguments = next(iter(calling.batch()))
    calls, end = 0, clock() + seconds
    while not calls or clock() < end:
        result = await call(*arguments)
        calls += 1
        if not right(result):
            raise ValueError(f"A wrong result: a{calling.method} gave {result!r:.100}")
    return calls


class Meeting:
    """A barrier for tasks, as asyncio.Barrier is on Python 3.11 and later."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._all_here = asyncio.Event()

    async def join(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all_here.set()
        await self._all_here.wait()


def _peak_mb() -> float:
    # Not ru_maxrss, which a process inherits from the one that has started it.
    return peak_bytes(psutil.Process()) / 1e6
