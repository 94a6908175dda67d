"""What DRF's throttles and ours answer where their algorithms differ."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.core.cache.backends.locmem import LocMemCache

pytest.importorskip("rest_framework")

from rest_framework import throttling

from django_nats.contrib import rest_framework as ours
from django_nats.limits import Rate
from django_nats.limits.algorithms import Usage
from tests.drf_suite.differences import SLIDING

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
        found.append(None if throttle.allow_request(None, None) else throttle.wait())
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


def share_of_a_steady_client(rate: Rate) -> float:
    """Return the share of requests that is allowed if they come evenly, at exactly the rate."""
    counts: Counter[int] = Counter()
    number = 50 * rate.count
    for position in range(number):
        window, part = divmod(position, rate.count)
        elapsed = part * rate.seconds / rate.count
        usage = Usage(rate, counts[window], counts[window - 1], elapsed, slides=True)
        counts[window] += usage.has_room(1)
    return sum(counts.values()) / number


@pytest.mark.parametrize("count", [3, 6, 60, 1000])
def test_a_client_that_comes_evenly_at_its_rate_is_refused_once_a_period(count: int) -> None:
    share = share_of_a_steady_client(Rate(count, 60))
    assert share == pytest.approx((count - 1) / count, abs=0.02)
