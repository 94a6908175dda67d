"""The clock of throttles, and how long a refused request waits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.http import HttpRequest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

pytest.importorskip("rest_framework")

from rest_framework import throttling

from django_nats.contrib.rest_framework import UserRateThrottle
from tests.contrib.asking import PerKey, allowed, ask, statuses
from tests.servers import eventually

pytestmark = pytest.mark.usefixtures("counting")

NUMBERS = itertools.count()


@hypothesis_settings(
    max_examples=30,
    phases=[Phase.generate],  # an example that fails may take a minute
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rate=st.sampled_from(["1/sec", "3/min", "10/hour", "7/day"]),
    begin=st.floats(0, 2e9),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=20),
    algorithm=st.sampled_from(["sliding", "fixed"]),
)
def test_a_refused_request_is_allowed_after_its_wait_and_not_before(
    rate: str, begin: float, gaps: list[float], algorithm: str
) -> None:
    class Throttle(PerKey):
        now = begin

    Throttle.rate, Throttle.algorithm = rate, algorithm
    Throttle.key = f"key {next(NUMBERS)}"
    throttle = Throttle()
    for gap in gaps:
        Throttle.now += gap * throttle.duration / throttle.num_requests
        throttle = Throttle()
        if not throttle.allow_request(HttpRequest(), None):
            break
    wait = throttle.wait()
    assert wait is not None
    if throttle.decision:
        assert wait == 0
        return

    def peek(after: float) -> Any:
        limit = throttle.get_limit()
        return limit._run(limit._peek(Throttle.key, None, now=Throttle.now + after))

    # Once the server has taken the refused request off again.
    assert eventually(lambda: peek(0).retry_after == pytest.approx(wait))
    assert not peek(wait * 0.99)
    Throttle.now += wait + 1e-6
    assert allowed(Throttle)


def test_a_rate_of_nothing_allows_nothing_and_gives_no_time_to_wait() -> None:
    class Never(PerKey):
        rate = "0/day"

    response = ask(Never)
    assert response.status_code == 429
    assert "Retry-After" not in response


def test_before_a_request_is_counted_there_is_no_time_to_wait() -> None:
    assert PerKey().wait() is None


def test_a_timer_replaces_the_servers_clock() -> None:
    class Throttle(PerKey):
        rate = "1/day"

    assert [allowed(Throttle) for _ in range(2)] == [True, False]
    Throttle.now += 3 * 86_400
    assert [allowed(Throttle) for _ in range(2)] == [True, False]


def test_without_a_timer_of_ones_own_the_servers_clock_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    assert statuses(2, Throttle) == [200, 429]
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert statuses(1, Throttle) == [429]


@pytest.mark.parametrize("replace", [lambda self: 1e9, staticmethod(lambda: 1e9)])
def test_a_timer_that_a_test_patches_into_drfs_class_is_honoured(
    monkeypatch: pytest.MonkeyPatch, replace: Any
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    assert statuses(2, Throttle) == [200, 429]
    monkeypatch.setattr(throttling.SimpleRateThrottle, "timer", replace)
    assert statuses(2, Throttle) == [200, 429]
