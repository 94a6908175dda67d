"""What the counts of windows let through, compared with the times of hits.

If the windows before and after a moment have let a and b hits through, and b of them came within a
part e of the later one, then the sliding algorithm has let the last of them through because
a (1 - e) + b is at most the count. So a + b is at most the count plus a e: within a time s that is
no longer than a window, at most 1 + s / window times the count. Within a window's length that is
less than twice the count, since e is then less than 1.
"""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.limits.algorithms import ALGORITHMS, FIXED, SLIDING
from django_nats.limits.rates import Rate
from tests.support.windows import Windows, largest

# Powers of two, so that floating-point numbers are exact.
SECONDS = 64
TICK = 1 / 4
TICKS = int(SECONDS / TICK)

counts = st.integers(1, 20)
costs = st.integers(1, 5)
gaps = st.one_of(
    st.integers(0, 3), st.integers(0, TICKS), st.sampled_from([TICKS - 1, TICKS, TICKS + 1])
)
hits = st.lists(st.tuples(gaps, costs), max_size=80)


def let_through(algorithm: str, count: int, hits: list[tuple[int, int]]) -> list[float]:
    """Return the times of the hits that are let through. Each hit is a gap in ticks and a cost."""
    windows = Windows(Rate(count, SECONDS), algorithm)
    for ticks, (_, cost) in zip(accumulate(gap for gap, _ in hits), hits, strict=True):
        windows.hit(ticks * TICK, cost)
    return windows.log


def greedy(algorithm: str, count: int, begin: int) -> list[float]:
    """Return what is let through to a client that is silent until a tick, and then never again."""
    windows = Windows(Rate(count, SECONDS), algorithm)
    for tick in range(begin, 3 * TICKS):
        while windows.hit(tick * TICK):
            pass
    return windows.log


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(count=counts, hits=hits)
def test_no_aligned_window_has_more_than_the_count(
    algorithm: str, count: int, hits: list[tuple[int, int]]
) -> None:
    log = let_through(algorithm, count, hits)
    numbers = [int(time // SECONDS) for time in log]
    assert max(map(numbers.count, numbers), default=0) <= count


@given(count=counts, hits=hits, ticks=st.integers(1, TICKS))
def test_within_a_part_of_a_window_sliding_adds_at_most_that_part_of_the_count(
    count: int, hits: list[tuple[int, int]], ticks: int
) -> None:
    log = let_through(SLIDING, count, hits)
    assert largest(log, ticks * TICK) <= count * (1 + ticks / TICKS)


@given(count=counts, hits=hits)
def test_within_a_windows_length_sliding_stays_below_twice_the_count(
    count: int, hits: list[tuple[int, int]]
) -> None:
    assert largest(let_through(SLIDING, count, hits), SECONDS) < 2 * count


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_the_worst_case_of_sliding_is_found_by_search(count: int) -> None:
    begins = range(TICKS // 2, TICKS)
    found = [largest(greedy(SLIDING, count, begin), SECONDS) for begin in begins]
    assert max(found) == 2 * count - 1


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_after_a_burst_at_the_end_of_a_window_sliding_lets_the_rate_through(count: int) -> None:
    log = greedy(SLIDING, count, TICKS - 1)
    for ticks in range(2, TICKS + 1):
        since_the_edge = ticks - 2  # of the other two, one has the burst and one is at the edge
        assert largest(log, ticks * TICK) == count + count * since_the_edge // TICKS


def test_the_worst_case_of_fixed_is_twice_the_count_at_once() -> None:
    log = greedy(FIXED, 5, TICKS - 1)
    assert largest(log, 2 * TICK) == 10


@given(count=counts, hits=hits)
def test_after_two_windows_without_a_hit_the_whole_count_is_let_through(
    count: int, hits: list[tuple[int, int]]
) -> None:
    windows = Windows(Rate(count, SECONDS), SLIDING)
    for tick, (_, cost) in zip(accumulate(gap for gap, _ in hits), hits, strict=True):
        windows.hit(tick * TICK, cost)
    end = sum(gap for gap, _ in hits) * TICK
    assert windows.hit(end + 2 * SECONDS, count)
