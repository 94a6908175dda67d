"""Rates, as users write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.limits.rates import LONGEST_S, Rate, parse_rate

WHERE = 'Limit("api")'
RATES = st.builds(Rate, st.integers(0, 10**15 - 1), st.integers(1, LONGEST_S))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5/s", (5, 1)),
        ("100/m", (100, 60)),
        ("2000/h", (2000, 3600)),
        ("5000/d", (5000, 86_400)),
        ("100/15m", (100, 900)),
        ("100/300", (100, 300)),
        ("0/s", (0, 1)),
        ("1/366d", (1, LONGEST_S)),
        ((100, 60), (100, 60)),
        ((0, 60), (0, 60)),
        ((100, timedelta(minutes=15)), (100, 900)),
        (Rate(1, 2), (1, 2)),
    ],
)
def test_a_rate_has_a_count_and_a_number_of_seconds(value: object, expected: Any) -> None:
    assert parse_rate(value, WHERE) == Rate(*expected)


def test_none_is_no_limit() -> None:
    assert parse_rate(None, WHERE) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "5/",
        "/s",
        "s/5",
        "5/x",
        "5/M",
        "5/min",
        "5/m, 10/h",
        " 5/m",
        "5/m\n",
        "-5/m",
        "+5/m",
        "1.5/m",
        "5/1.5m",
        "5/0m",
        "5/-1m",
        "\u0665/m",
        "5/367d",
        f"{10**15}/m",
        "9" * 5000 + "/m",
        "5/" + "9" * 5000 + "m",
        (-1, 60),
        (10**15, 60),
        (5, 0),
        (5, -60),
        (5, LONGEST_S + 1),
        (5, timedelta(0)),
        (5, timedelta(days=-1)),
        (5, timedelta(seconds=1.5)),
        (5, timedelta.max),
    ],
)
def test_nonsense_is_a_value_error_that_names_the_place_and_shows_what_is_right(
    value: object,
) -> None:
    with pytest.raises(ValueError, match=rf'^{re.escape(WHERE)}: .* such as "5/s"'):
        parse_rate(value, WHERE)


@pytest.mark.parametrize(
    "value",
    [
        5,
        5.0,
        True,
        b"5/m",
        [5, 60],
        (5,),
        (5, 60, 1),
        (True, 60),
        (5, True),
        (5.0, 60),
        (5, 60.0),
        ("5", 60),
        (5, "m"),
        (5, None),
        timedelta(minutes=1),
        object,
    ],
)
def test_another_type_is_a_type_error_that_names_the_place(value: object) -> None:
    with pytest.raises(TypeError, match=rf"^{re.escape(WHERE)}: "):
        parse_rate(value, WHERE)


@given(RATES)
def test_a_rate_is_read_back_from_its_text(rate: Rate) -> None:
    assert parse_rate(str(rate), WHERE) == rate


@given(RATES)
def test_a_rate_is_a_rate(rate: Rate) -> None:
    assert parse_rate(rate, WHERE) == rate
    assert parse_rate((rate.count, timedelta(seconds=rate.seconds)), WHERE) == rate


@given(st.text() | st.from_regex(r"\A[0-9+./]*[smhdMH ]?\Z"))
def test_any_text_is_a_rate_within_bounds_or_a_value_error(text: str) -> None:
    try:
        rate = parse_rate(text, WHERE)
    except ValueError:
        return
    assert rate is not None
    assert rate.count >= 0
    assert 0 < rate.seconds <= LONGEST_S
