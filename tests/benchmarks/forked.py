"""Processes of one worker that call a function at the same time, as often as they can."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from .measuring import SERVER_PID_VARIABLE, percentiles, processor_seconds

_PATIENCE = 30.0


def at_once(
    make: Callable[[], Callable[[], object]], *, processes: int, seconds: float
) -> dict[str, float]:
    """Call a function in several new processes. ``total`` is the number of calls.

    Each process calls ``make``, which opens its connections, for a function of its own. It calls
    that once before it is measured.
    """
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(processes + 1)
    ends = [fork.Pipe(duplex=False) for _ in range(processes)]
    children = [fork.Process(target=_repeat, args=(make, send, ready, seconds)) for _, send in ends]
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


def _repeat(
    make: Callable[[], Callable[[], object]], send: Connection, ready: Barrier, seconds: float
) -> None:
    call = make()
    call()
    ready.wait(_PATIENCE)
    clock = time.perf_counter_ns
    times: list[int] = []
    processor = time.process_time()
    begun = ended = clock()
    while ended - begun < seconds * 1e9 or len(times) < 2:
        start = clock()
        call()
        ended = clock()
        times.append(ended - start)
    found: dict[str, Any] = {
        "times": times,
        "seconds": (ended - begun) / 1e9,
        "processor": time.process_time() - processor,
    }
    send.send(found)


def _server_seconds() -> float:
    return processor_seconds(int(os.environ[SERVER_PID_VARIABLE]))
