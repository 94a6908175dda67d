"""The goals, which are ratios of medians of one run, and the verdicts on them.

``reach`` is the least that is acceptable. ``after`` is the goal proper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .contestants import (
    ASYNCIO,
    COUNTER,
    DJANGO_RATELIMIT,
    DJANGO_REDIS,
    DJANGO_REDIS_CACHE,
    DRF_THROTTLE,
    EMPTY_VIEW,
    FILE_COUNTER,
    LIMIT,
    LIMITS,
    LOCMEM,
    NATS_FLOOR,
    NEAR,
    OURS,
    SESSIONS,
    VCACHE,
)
from .figures import kind, spread
from .operations import TASKS
from .results import Document, Goal

AFTER, REACH, MISSED, NOT_MEASURED = "after", "reach", "missed", "not measured"


@dataclass(frozen=True)
class Ratio:
    """A figure of ``ours``, divided by that of another contestant if ``against`` names one.

    If more is better for the figure, the bounds are lower limits. Otherwise they are upper limits.
    """

    name: str
    question: str
    cell: Mapping[str, Any]
    figure: str
    against: str | None
    reach: float | None
    after: float | None
    ours: str = OURS

    def measured(self, document: Document, ours: str | None = None) -> float | None:
        own = _median(document, self, ours or self.ours)
        if own is None or self.against is None:
            return own
        other = _median(document, self, self.against)
        return own / other if other else None

    def verdict(self, measured: float | None) -> str:
        if measured is None:
            return NOT_MEASURED
        if self._within(measured, self.reach) and self._within(measured, self.after):
            return AFTER
        return REACH if self._within(measured, self.reach) else MISSED

    def bound(self, value: float | None) -> str:
        """Return a bound as text: "≤ 0.7 ×", "≥ 1,000 a second", or "" for None."""  # noqa: RUF002
        if value is None:
            return ""
        unit = "×" if self.against else kind(self.figure).unit  # noqa: RUF001
        return f"{'≥' if self._more_is_better else '≤'} {value:,.12g} {unit}"

    @property
    def _more_is_better(self) -> bool:
        return kind(self.figure).more_is_better

    def _within(self, measured: float, bound: float | None) -> bool:
        if bound is None:
            return True
        return measured >= bound if self._more_is_better else measured <= bound


def _median(document: Document, ratio: Ratio, contestant: str) -> float | None:
    result = document.find(ratio.question, contestant, **ratio.cell)
    found = result and spread(result.rounds, ratio.figure)
    return found.median if found else None


def _single(operation: str, keys: int = 1) -> dict[str, Any]:
    return {"operation": operation, "size": 100, "keys": keys, "threads": 1}


def _ratios() -> Iterator[Ratio]:
    for operation in ("get", "set"):
        for against, reach, after in (
            (DJANGO_REDIS_CACHE, 1.0, 0.7),
            (DJANGO_REDIS, 1.25, 1.1),
            (NATS_FLOOR, 2.5, 1.6),
        ):
            cell = _single(operation)
            yield Ratio(f"{operation}, 1 thread", "sync", cell, "p50_us", against, reach, after)
    cell = _single("get") | {"threads": 8}
    for against, reach, after in ((DJANGO_REDIS_CACHE, 2.5, 4), (DJANGO_REDIS, 1.5, 2.5)):
        yield Ratio("get, 8 threads", "sync", cell, "rate", against, reach, after)
    cell = {"operation": "get", "size": 100, "keys": 1, "concurrency": 100}
    for against, reach, after in (
        (DJANGO_REDIS, 8, 15),
        (DJANGO_REDIS_CACHE, 12, 25),
        (VCACHE, 0.4, 0.7),
    ):
        yield Ratio("aget, 100 requests", "async", cell, "rate", against, reach, after)
    cell = {**cell, "callers": TASKS}
    for against in (DJANGO_REDIS, DJANGO_REDIS_CACHE):
        yield Ratio("aget, 100 tasks", "async", cell, "rate", against, 4, None)
    cell = _single("get_many", 100)
    for against, reach, after in ((DJANGO_REDIS, 2.2, 1.2), (NATS_FLOOR, 1.5, 1.3)):
        yield Ratio("get_many(100)", "sync", cell, "p50_us", against, reach, after)
    cell = _single("set_many", 100)
    yield Ratio("set_many(100)", "sync", cell, "p50_us", DJANGO_REDIS, 0.7, 0.5)
    cell = {"interface": "ASGI", "clients": 50}
    name = "ASGI view, 6 operations, 50 clients"
    yield Ratio(name, "requests", cell, "rate", DJANGO_REDIS_CACHE, 2.5, None)
    yield Ratio(name, "requests", cell, "rate", EMPTY_VIEW, None, 0.9)
    name += ", 1 ms away"
    yield Ratio(name, "network", cell, "rate", DJANGO_REDIS_CACHE, 5, 10)
    cell = {"until": "setup"}
    yield Ratio("import and django.setup() added", "startup", cell, "ms", None, 30, None)
    yield from _of_near_cache()
    for operation in ("load and save", "aload and asave"):
        cell, name = {"operation": operation}, f"sessions, {operation}"
        yield Ratio(name, "sessions", cell, "p50_us", OURS, 0.75, None, SESSIONS)
    yield from _of_counters()
    yield from _of_limits()


def _of_near_cache() -> Iterator[Ratio]:
    cell = {"operation": "get"}
    name = "get of a copy"
    yield Ratio(name, "near", cell, "p50_us", LOCMEM, 1.1, 0.7, NEAR)
    for against in (DJANGO_REDIS, VCACHE):
        yield Ratio(name, "near", cell, "p50_us", against, 1 / 25, None, NEAR)
    cell = {"operation": "get_many"}
    yield Ratio("get_many(100) of copies", "near", cell, "p50_us", LOCMEM, 1, None, NEAR)
    cell = {"operation": "first get"}
    yield Ratio("get without a copy", "near", cell, "p50_us", OURS, 1.15, None, NEAR)
    cell = {"operation": "change"}
    yield Ratio("change seen, median", "near", cell, "p50_us", None, 1500, None, NEAR)
    yield Ratio("change seen, 99 %", "near", cell, "p99_us", None, 5000, None, NEAR)


def _of_counters() -> Iterator[Ratio]:
    cell: dict[str, Any] = {"processes": 8}
    for against, reach, after in ((OURS, 8, None), (DJANGO_REDIS, 0.55, 0.8)):
        name = "one counter, 8 processes"
        yield Ratio(name, "contention", cell, "rate", against, reach, after, COUNTER)
    cell = {"operation": "incr", "concurrency": 100}
    name = "counter.aincr, 100 concurrent"
    yield Ratio(name, "async", cell, "rate", DJANGO_REDIS, 8, None, COUNTER)
    for threads, least in ((1, 1_000_000), (8, 300_000)):
        cell = {"operation": "incr_later", "threads": threads}
        name = f"incr_later, {threads} thread{'s' * (threads > 1)}"
        yield Ratio(name, "counters", cell, "rate", None, least, None, COUNTER)
    cell = {"objects": 100}
    name = "totals of 100 objects"
    yield Ratio(name, "counters", cell, "p50_us", OURS, 1.5, None, COUNTER)
    for ours, storage in ((COUNTER, "memory"), (FILE_COUNTER, "file")):
        name = f"counters past HISTORY, {storage}"
        yield Ratio(name, "history", {}, "kept", None, 0.4, None, ours)


def _of_limits() -> Iterator[Ratio]:
    cell: dict[str, Any] = {"operation": "hit", "rates": 1, "processes": 1}
    for keys in ("one key", "new keys"):
        for algorithm in ("sliding", "fixed"):
            name = f"hit of a limit, {algorithm}, {keys}"
            of_keys = cell | {"keys": keys, "algorithm": algorithm}
            yield Ratio(name, "limits", of_keys, "p50_us", COUNTER, 1.3, None, LIMIT)
    cell |= {"keys": "one key", "processes": 8}
    for algorithm, other in (("sliding", DRF_THROTTLE), ("fixed", DJANGO_RATELIMIT)):
        name = f"hits of a limit, {algorithm}, 8 processes"
        of_key = cell | {"algorithm": algorithm}
        for against in (other, LIMITS):
            yield Ratio(name, "limits", of_key, "rate", against, 1.5, None, LIMIT)
    cell = {"operation": "refusal"}
    yield Ratio("refusal of a limit", "limits", cell, "p50_us", LOCMEM, 1, None, LIMIT)


RATIOS = tuple(_ratios())


def judge(document: Document) -> list[Goal]:
    """Return every goal, with the ratio that was measured and the verdict."""
    goals = []
    for ratio in RATIOS:
        measured = ratio.measured(document)
        goals.append(
            Goal(
                f"{ratio.name}, against {ratio.against}" if ratio.against else ratio.name,
                measured,
                ratio.bound(ratio.reach),
                ratio.bound(ratio.after),
                ratio.verdict(measured),
                with_asyncio=ratio.measured(document, ASYNCIO) if ratio.ours == OURS else None,
            )
        )
    return goals
