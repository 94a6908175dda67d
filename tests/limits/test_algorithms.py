"""What a rate lets through, by what was counted."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.limits.algorithms import Usage
from django_nats.limits.rates import Rate

RATE = Rate(10, 60)

counts = st.integers(0, 1000)
costs = st.integers(1, 1000)
rates = st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 900, 3600, 86_400]))
parts = st.floats(0, 1, exclude_max=True)


def usage(current: int, previous: int = 0, elapsed: float = 0.0, slides: bool = True) -> Usage:
    return Usage(RATE, current, previous, elapsed, slides)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    rate, slides = draw(rates), draw(st.booleans())
    previous = draw(counts) if slides else 0
    return Usage(rate, draw(counts), previous, draw(parts) * rate.seconds, slides)


def later(usage: Usage, seconds: float) -> Usage:
    """Return what a usage has become after a number of seconds without a hit."""
    rate, current, previous, elapsed, slides = usage
    elapsed += seconds
    while elapsed >= rate.seconds:
        previous, current = (current if slides else 0), 0
        elapsed -= rate.seconds
    return Usage(rate, current, previous, elapsed, slides)


@given(usages(), costs)
def test_no_window_ever_holds_more_than_its_rate(usage: Usage, cost: int) -> None:
    if usage.has_room(cost):
        assert usage.current + cost <= usage.rate.count


@given(usages(), costs)
def test_there_is_room_for_what_remains_and_for_no_more(usage: Usage, cost: int) -> None:
    assert usage.has_room(cost) == (cost <= usage.remaining)


@given(usages(), costs)
def test_a_hit_is_let_through_after_its_wait_and_not_much_earlier(usage: Usage, cost: int) -> None:
    wait = usage.retry_after(cost)
    assert (wait == 0) == usage.has_room(cost)
    if wait == inf:
        assert cost > usage.rate.count
    else:
        seconds = usage.rate.seconds
        assert later(usage, wait + 1e-6 * seconds).has_room(cost)
        if wait > 1e-6 * seconds:
            assert not later(usage, wait - 1e-6 * seconds).has_room(cost)


@given(usages())
def test_nothing_counts_after_the_reset(usage: Usage) -> None:
    assert later(usage, usage.reset_after).used == pytest.approx(0, abs=1e-6)
    if usage.reset_after > 0.01 * usage.rate.seconds and usage.used > 0:
        assert later(usage, 0.99 * usage.reset_after).used > 0


def test_a_window_that_slides_counts_the_part_of_the_one_before_it_that_is_recent() -> None:
    assert usage(2, previous=8, elapsed=0).used == 10
    assert usage(2, previous=8, elapsed=30).used == 6
    assert usage(2, previous=8, elapsed=45).remaining == 6


def test_a_wait_ends_when_enough_of_the_window_before_has_passed() -> None:
    assert usage(4, previous=8, elapsed=15).retry_after(1) == pytest.approx(7.5)


def test_a_wait_may_last_into_the_next_window() -> None:
    assert usage(10, elapsed=40).retry_after(1) == pytest.approx(20 + 6)
    assert usage(10, elapsed=40, slides=False).retry_after(1) == 20


def test_a_cost_above_the_rate_waits_without_end() -> None:
    assert usage(0).retry_after(11) == inf


def test_what_slides_counts_until_the_end_of_the_next_window() -> None:
    assert usage(1, elapsed=40).reset_after == 80
    assert usage(1, elapsed=40, slides=False).reset_after == 20
    assert usage(0, previous=1, elapsed=40).reset_after == 20
    assert usage(0).reset_after == 0
