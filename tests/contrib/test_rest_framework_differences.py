"""What DRF's throttles and ours answer where their algorithms differ."""

from __future__ import annotations

import re
from collections import Counter
from math import floor
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest

pytest.importorskip("rest_framework")

from rest_framework import throttling

from django_nats.contrib import rest_framework as ours
from django_nats.limits import Rate
from django_nats.limits.algorithms import Usage
from tests.drf_suite.differences import MEANINGLESS, NO_LIST, SLIDING

DOCS = Path(__file__).parents[2] / "docs"
MINUTELY = Rate(60, 60)
Waits = list["float | None"]


class Scenario(NamedTuple):
    """The times of requests, and how long each waits: None if it is allowed."""

    rate: str
    times: list[float]
    drfs: Waits
    ours: Waits


SCENARIOS = {
    "ThrottlingTests.test_request_throttling_expires": Scenario(
        "3/sec",
        [0, 0, 0, 1, 4 / 3],
        [None, None, None, None, None],
        [None, None, None, 1 / 3, None],
    ),
    "ThrottlingTests.test_seconds_fields": Scenario(
        "3/sec", [0, 0, 0, 0], [None, None, None, 1], [None, None, None, 4 / 3]
    ),
    "ThrottlingTests.test_minutes_fields": Scenario(
        "3/min", [0, 0, 0, 0], [None, None, None, 60], [None, None, None, 80]
    ),
    "ThrottlingTests.test_throttle_rate_change_negative": Scenario(
        "6/min", [0] * 7, [None] * 6 + [60], [None] * 6 + [70]
    ),
    "ThrottlingTests.test_request_throttling_multiple_throttles": Scenario(
        "3/sec",
        [0, 0, 0, 1, 1, 4 / 3],
        [None, None, None, None, None, None],
        [None, None, None, 1 / 3, 1 / 3, None],
    ),
    "ThrottlingTests.test_next_rate_remains_constant_if_followed": Scenario(
        "3/min",
        [0, 20, 40, 60, 80],
        [None, None, None, None, None],
        [None, None, None, 20, None],
    ),
    "ScopedRateThrottleTests.test_scoped_rate_throttle": Scenario(
        "3/min",
        [0, 1, 2, 60, 80],
        [None, None, None, None, None],
        [None, None, None, 20, None],
    ),
}


def waits(base: type[Any], scenario: Scenario) -> Waits:
    """Return how long each request of a scenario waits for a throttle class."""
    times = iter(scenario.times)

    class Throttle(base):  # type: ignore[misc]
        rate = scenario.rate
        cache = LocMemCache("differences", {})

        def get_cache_key(self, request: object, view: object) -> str:
            return "key"

        def timer(self) -> float:
            return next(times)

    Throttle.cache.clear()
    found: Waits = []
    for _ in scenario.times:
        throttle = Throttle()
        found.append(None if throttle.allow_request(HttpRequest(), None) else throttle.wait())
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_requests_wait_for_drfs_throttles_and_for_ours_as_listed(name: str, counting: None) -> None:
    scenario = SCENARIOS[name]
    with mock.patch("django_nats.limits.tally.crc32", return_value=0):
        found = waits(ours.SimpleRateThrottle, scenario)
    assert found == [pytest.approx(each) for each in scenario.ours]
    assert waits(throttling.SimpleRateThrottle, scenario) == scenario.drfs


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_fixed_algorithm_answers_as_drf_does_if_a_window_begins_with_the_first_request(
    name: str, counting: None
) -> None:
    scenario = SCENARIOS[name]

    class Fixed(ours.SimpleRateThrottle):
        algorithm = "fixed"

    with mock.patch("django_nats.limits.tally.crc32", return_value=0):
        assert waits(Fixed, scenario) == [pytest.approx(each) for each in scenario.drfs]


def test_each_listed_test_has_a_scenario() -> None:
    assert SCENARIOS.keys() == SLIDING.keys()


# The documented table of bursts, at 60/min ------------------------------------------------------


def allowed(rate: Rate, times: list[float], *, slides: bool = True) -> list[float]:
    """Return which times of requests are allowed, of a client whose windows begin at 0 s."""
    counts: Counter[int] = Counter()
    passed: list[float] = []
    for time in times:
        window = floor(time / rate.seconds)
        before = counts[window - 1] if slides else 0
        usage = Usage(rate, counts[window], before, time - window * rate.seconds, slides)
        if usage.has_room(1):
            counts[window] += 1
            passed.append(time)
    return passed


def evenly(rate: Rate, *, pace: float = 1.0) -> list[float]:
    """Return the times of requests for 50 periods, at the rate or more slowly."""
    return [number * rate.seconds / rate.count / pace for number in range(int(50 * rate.count))]


@pytest.mark.parametrize("count", [3, 6, 60, 1000])
def test_one_request_of_each_period_is_refused_to_a_client_that_sends_evenly(count: int) -> None:
    rate = Rate(count, 60)
    times = evenly(rate)
    assert len(allowed(rate, times)) == pytest.approx(50 * (count - 1), abs=1)
    assert allowed(rate, times, slides=False) == times


def test_a_client_that_sends_five_percent_more_slowly_is_never_refused() -> None:
    times = evenly(MINUTELY, pace=0.95)
    assert allowed(MINUTELY, times) == times


@pytest.mark.parametrize(("burst", "next_one"), [(0.0, 61.0), (30.0, 31.0), (59.0, 2.0)])
def test_after_a_burst_the_requests_of_one_second_after_the_other_are_allowed(
    burst: float, next_one: float
) -> None:
    asking = [burst + tenth / 10 for tenth in range(1, 1200)]
    after = allowed(MINUTELY, [burst] * 60 + asking)[60:]
    assert after[:20] == pytest.approx([burst + next_one + second for second in range(20)])


@pytest.mark.parametrize(("slides", "at_once", "within"), [(True, 60, 119), (False, 120, 120)])
def test_the_most_that_a_client_can_send(slides: bool, at_once: int, within: int) -> None:
    burst = 59.999
    times = [burst] * 60 + [60 + tenth / 10 for tenth in range(600) for _ in range(60)]
    passed = allowed(MINUTELY, times, slides=slides)
    assert sum(each <= 60 for each in passed) == at_once
    assert sum(each < burst + 60 for each in passed) == within


# The documented table of DRF's tests --------------------------------------------------------------


def test_the_docs_list_the_tests_of_drf_with_another_outcome() -> None:
    page = DOCS / "how-to/moving-from-drf-throttles.md"
    rows = re.findall(r"^\| `test_.*", page.read_text(), re.MULTILINE)
    assert rows == [
        f"| `{name.partition('.')[2]}` | {each.expected} | {each.answer} | {each.why} |"
        for name, each in {**SLIDING, **NO_LIST, **MEANINGLESS}.items()
    ]
