"""The verdicts on the benchmark's goals."""

from __future__ import annotations

import pytest

from tests.benchmarks.contestants import (
    ASYNCIO,
    COUNTER,
    DJANGO_REDIS,
    DJANGO_REDIS_CACHE,
    EMPTY_VIEW,
    NATS_FLOOR,
    OURS,
)
from tests.benchmarks.goals import RATIOS, judge
from tests.benchmarks.questions import question
from tests.benchmarks.results import Document, Goal, Result

GET = {"operation": "get", "size": 100, "keys": 1, "threads": 1}
THREADS = GET | {"threads": 8}
VIEW = {"interface": "ASGI", "clients": 50}


def judged(name: str, *results: Result) -> Goal:
    goals = judge(Document({}, list(results)))
    return next(goal for goal in goals if goal.name == name)


def sync(contestant: str, *medians: float, threads: bool = False) -> Result:
    figure = "rate" if threads else "p50_us"
    rounds = [{figure: median} for median in medians]
    return Result("sync", contestant, THREADS if threads else GET, rounds)


@pytest.mark.parametrize(
    ("ours", "verdict"), [(70, "after"), (71, "reach"), (100, "reach"), (101, "missed")]
)
def test_bounds_are_upper_limits_where_less_is_better(ours: float, verdict: str) -> None:
    name = "get, 1 thread, against Django's RedisCache"
    goal = judged(name, sync(OURS, ours), sync(DJANGO_REDIS_CACHE, 100))
    assert (goal.measured, goal.verdict) == (ours / 100, verdict)
    assert (goal.reach, goal.after) == ("≤ 1 ×", "≤ 0.7 ×")  # noqa: RUF001


@pytest.mark.parametrize(("ours", "verdict"), [(250, "after"), (249, "reach"), (149, "missed")])
def test_bounds_are_lower_limits_where_more_is_better(ours: float, verdict: str) -> None:
    results = [sync(OURS, ours, threads=True), sync(DJANGO_REDIS, 100, threads=True)]
    goal = judged("get, 8 threads, against django-redis", *results)
    assert goal.verdict == verdict


def test_medians_are_compared_and_asyncio_is_shown_as_well() -> None:
    results = [sync(OURS, 9, 20, 900), sync(ASYNCIO, 30), sync(NATS_FLOOR, 1, 10, 11)]
    goal = judged("get, 1 thread, against NATS socket", *results)
    assert (goal.measured, goal.with_asyncio) == (2, 3)


def test_a_goal_without_its_figures_is_not_measured() -> None:
    goal = judged("get, 1 thread, against NATS socket", sync(OURS, 10))
    assert (goal.measured, goal.verdict) == (None, "not measured")


def test_a_goal_without_a_bound_to_reach_cannot_be_missed() -> None:
    results = [
        Result("requests", OURS, VIEW, [{"rate": 1.0}]),
        Result("requests", EMPTY_VIEW, VIEW, [{"rate": 10.0}]),
    ]
    goal = judged("ASGI view, 6 operations, 50 clients, against empty view", *results)
    assert (goal.measured, goal.verdict, goal.reach) == (0.1, "reach", "")


def test_an_absolute_figure_is_judged_with_its_unit() -> None:
    setup = Result("startup", OURS, {"until": "setup"}, [{"ms": 31.0}])
    goal = judged("import and django.setup() added", setup)
    assert (goal.measured, goal.verdict, goal.reach) == (31.0, "missed", "≤ 30 ms")


def test_counters_are_compared_with_our_own_cache() -> None:
    cell = {"processes": 8}
    rates = {COUNTER: 80.0, OURS: 10.0, ASYNCIO: 1.0}
    results = [Result("contention", who, cell, [{"rate": rate}]) for who, rate in rates.items()]
    goal = judged("one counter, 8 processes, against django-nats", *results)
    assert (goal.measured, goal.verdict, goal.with_asyncio) == (8, "after", None)


def test_large_bounds_are_written_in_full() -> None:
    counted = Result(
        "counters", COUNTER, {"operation": "incr_later", "threads": 1}, [{"rate": 9.0}]
    )
    goal = judged("incr_later, 1 thread", counted)
    assert (goal.reach, goal.verdict) == ("≥ 1,000,000 a second", "missed")


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("ratio", RATIOS, ids=lambda ratio: f"{ratio.name}, {ratio.against}")
def test_every_goal_has_a_cell_that_is_measured(ratio: object, quick: bool) -> None:
    cells = question(ratio.question).cells(quick)
    assert any(ratio.cell.items() <= cell.items() for cell in cells)
