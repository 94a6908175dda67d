"""What do increments cost that do not wait for the server, and the totals of a page?

The questions contention and async measure increments whose callers wait for the server. This one
measures increments that are added up in the process and published later, and the totals of a page
of objects, compared with the same number of keys of a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from threading import Barrier
from typing import Any, TypeVar

from django_nats.counters import Counter, counters, prefetch_counters

from ..contestants import COUNTER, DJANGO_REDIS, OURS, Contestant
from ..lab import Lab
from ..measuring import TIMEOUT, Meter, expect, percentiles
from ..results import Cell

T = TypeVar("T")
R = TypeVar("R")

NAME = "counters"
TITLE = "What do increments cost that nobody waits for, and the totals of a page?"

LATER, PAGE = "incr_later", "read totals"

_AT_ONCE = 1000
_LEAST_CALLS = 10


def cells(quick: bool) -> list[dict[str, Any]]:
    return [
        {"operation": PAGE, "objects": 100},
        *({"operation": LATER, "threads": threads} for threads in (1, 8)),
    ]


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    others = (OURS, DJANGO_REDIS) if cell["operation"] == PAGE else ()
    return contestant.name in (COUNTER, *others)


def measure(lab: Lab, contestant: Contestant, cell: Cell) -> dict[str, float]:
    if cell["operation"] == LATER:
        job, seconds = "count_later", lab.span
    else:
        # Every call is timed, so half the time gives enough of them.
        job = "read_objects" if contestant.name == COUNTER else "read_keys"
        seconds = lab.span / 2
    arguments = {name: value for name, value in cell.items() if name != "operation"}
    return lab.call(contestant, f"{__name__}:{job}", seconds=seconds, **arguments)


# In the worker: increments that are published later -------------------------------------------


def count_later(cache: Any, *, threads: int, seconds: float) -> dict[str, float]:
    """Increment one counter in several threads, and check the total once all is published."""
    counter = Counter("later")
    before = counter.value()
    _, warm = _count(counter, threads, seconds / 5)
    meter, calls = _count(counter, threads, seconds)
    counters.flush()
    total = counter.value() - before
    expect(total == warm + calls, f"{total} after {warm + calls} increments")
    return meter.figures(calls)


def _count(counter: Counter, threads: int, seconds: float) -> tuple[Meter, int]:
    """Increment for some seconds. Return the meter and the number of increments."""
    start = Barrier(threads + 1)
    meter = Meter()

    def work() -> int:
        start.wait()
        calls, end = 0, time.perf_counter() + seconds
        while not calls or time.perf_counter() < end:
            for _ in repeat(None, _AT_ONCE):
                counter.incr_later()
            calls += _AT_ONCE
        return calls

    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work) for _ in range(threads)]
        with meter:
            start.wait()
            calls = sum([each.result() for each in working])
    return meter, calls


# In the worker: a page's totals --------------------------------------------------------------


def read_objects(cache: Any, *, objects: int, seconds: float) -> dict[str, float]:
    """Read the totals of objects that a query has just loaded."""
    # A model needs settings, which the main process does not have.
    from ..counting import Article

    def right(page: list[Article], _: object = None) -> bool:
        return [int(each.views) for each in page] == [each.pk for each in page]

    for each in Article.loaded(objects):
        each.views.set(each.pk)
    figures = _time_pages(seconds, lambda: Article.loaded(objects), prefetch_counters, right)
    page = Article.loaded(objects)
    prefetch_counters(page)
    for each in page:
        Article.views.counter(each.pk).incr()
    expect(right(page), "the objects do not have the totals that were read for them")
    return figures


def read_keys(cache: Any, *, objects: int, seconds: float) -> dict[str, float]:
    """Read the same numbers from keys of a cache."""
    stored = {f"article:{number}:views": number for number in range(1, objects + 1)}
    cache.set_many(stored, TIMEOUT)
    return _time_pages(
        seconds, lambda: list(stored), cache.get_many, lambda _, found: bool(found == stored)
    )


def _time_pages(
    seconds: float,
    load: Callable[[], T],
    read: Callable[[T], R],
    right: Callable[[T, R], bool],
) -> dict[str, float]:
    """Time the reads of one caller, but neither ``load`` nor the check of the results."""
    clock = time.perf_counter_ns
    for span in (seconds / 5, seconds):
        times: list[int] = []
        meter = Meter()
        while meter.seconds < span or len(times) < _LEAST_CALLS:
            page = load()
            with meter:
                begun = clock()
                found = read(page)
                times.append(clock() - begun)
            expect(right(page, found), f"{NAME} gave {found!r:.100}")
    return {**percentiles(times), **meter.figures(len(times))}
