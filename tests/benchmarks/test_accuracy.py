"""The script compares both algorithms with a log, for each kind of traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_nats.limits.algorithms import FIXED, SLIDING
from tests.benchmarks.accuracy import RATE, TRAFFIC, compare, table

PAGE = Path(__file__).parents[2] / "docs/explanation/guarantees.md"


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_sliding_lets_less_through_at_once_than_fixed(traffic: str) -> None:
    sliding, fixed = (compare(each, TRAFFIC[traffic], windows=10) for each in (SLIDING, FIXED))
    assert sliding.most <= fixed.most <= 2
    assert sliding.most < 2
    assert sliding == compare(SLIDING, TRAFFIC[traffic], windows=10)


def test_traffic_at_the_windows_edge_is_the_worst_case() -> None:
    found = compare(SLIDING, TRAFFIC["the worst"], windows=10)
    assert found.most == 2 - 1 / RATE.count


def test_the_page_about_guarantees_shows_the_figures_of_the_script() -> None:
    page = PAGE.read_text().splitlines()
    assert [line for line in table() if line not in page] == []
