"""Values, clocks and checks that the questions share. They run in the workers."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import string
import sys
import time
from collections.abc import Coroutine, Sequence
from functools import cache
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

SERVER_PID_VARIABLE = "BENCHMARK_SERVER_PID"
TIMEOUT = 300
"""The lifetime of entries in seconds: longer than any measurement takes."""


@cache
def value(size: int) -> str:
    """Return the text that all contestants store. It is random, so that it compresses badly."""
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits, k=size))


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process in seconds, including threads that have ended."""
    if sys.platform == "linux":
        # The clock of another process, with the id that clock_getcpuclockid(3) would return. psutil
        # reads hundredths of a second, which is too coarse for a span of a tenth of a second.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def server_memory() -> int:
    """Return the resident memory of the contestant's server, in bytes."""
    return int(psutil.Process(int(os.environ[SERVER_PID_VARIABLE])).memory_info().rss)


class Meter:
    """Wall time and processor time, measured over one or more spans.

    Each ``with meter: …`` is a span. ``figures`` returns the sums.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._client = self._server = 0.0
        pid = os.environ.get(SERVER_PID_VARIABLE)
        self._server_pid = int(pid) if pid else None

    def __enter__(self) -> Meter:
        self._add(-1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._add(1)

    def _add(self, sign: int) -> None:
        self.seconds += sign * time.perf_counter()
        self._client += sign * time.process_time()
        if self._server_pid is not None:
            self._server += sign * processor_seconds(self._server_pid)

    def figures(self, operations: int) -> dict[str, float]:
        """Return rate, client_us and, if there is a server, server_us of that many operations."""
        found = {
            "rate": operations / self.seconds,
            "client_us": self._client / operations * 1e6,
        }
        if self._server_pid is not None:
            found["server_us"] = self._server / operations * 1e6
        return found


def percentiles(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Return p50_us and p99_us of the durations of single calls, of which two are required."""
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return {"p50_us": cuts[49] / 1000, "p99_us": cuts[98] / 1000}


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop that an ASGI server would choose: uvloop, if allowed."""
    if os.environ.get("DJANGO_NATS_LOOP") != "asyncio":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            result: T = uvloop.run(main)
            return result
    return asyncio.run(main)


def expect(right: bool, what: str) -> None:
    """Raise ValueError if the result is wrong."""
    if not right:
        raise ValueError(f"A wrong result: {what}")
