"""How many increments of one key do several processes get done, and is none of them lost?

A contestant needs only set, get and incr.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, Any

from django.core.cache import caches

from ..contestants import COUNTER_FLOOR, FILE, Contestant
from ..measuring import SERVER_PID_VARIABLE, expect, percentiles, processor_seconds
from ..results import Cell

if TYPE_CHECKING:
    from ..lab import Lab

NAME = "contention"
TITLE = "How fast can several processes count up one key?"

_KEY = "hot"
_PATIENCE = 30.0


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
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(processes + 1)
    ends = [fork.Pipe(duplex=False) for _ in range(processes)]
    children = [fork.Process(target=_count, args=(send, ready, seconds)) for _, send in ends]
    try:
        for child, (_, send) in zip(children, ends, strict=True):
            child.start()
            send.close()  # so that the pipe is closed when the child ends
        ready.wait(_PATIENCE)
        server = _server_seconds()
        found = [receive.recv() for receive, _ in ends]
        server = _server_seconds() - server
    finally:
        for child in children:
            if child.pid is not None:
                child.kill()
                child.join()
    times = [each for child in found for each in child["times"]]
    return {
        "total": len(times) + processes,
        "rate": sum(len(child["times"]) / child["seconds"] for child in found),
        **percentiles(times),
        "client_us": sum(child["processor"] for child in found) / len(times) * 1e6,
        "server_us": server / len(times) * 1e6,
    }


def _count(send: Connection, ready: Barrier, seconds: float) -> None:
    cache = caches.create_connection("default")
    cache.incr(_KEY)
    ready.wait(_PATIENCE)
    clock = time.perf_counter_ns
    times: list[int] = []
    processor = time.process_time()
    begun = ended = clock()
    while ended - begun < seconds * 1e9 or len(times) < 2:
        start = clock()
        cache.incr(_KEY)
        ended = clock()
        times.append(ended - start)
    send.send(
        {
            "times": times,
            "seconds": (ended - begun) / 1e9,
            "processor": time.process_time() - processor,
        }
    )


def _server_seconds() -> float:
    return processor_seconds(int(os.environ[SERVER_PID_VARIABLE]))
