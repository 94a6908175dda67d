"""Conversion of integers beyond Python's limit to and from decimal text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client.counters.digits import MAX_DIGITS, integer_of, text_of

BIG = 10**5000 + 7


@given(st.integers())
def test_integers_survive_conversion_to_text(number: int) -> None:
    assert integer_of(text_of(number).encode()) == number
    assert text_of(number, ",") == f"{number:,}"


@pytest.mark.parametrize("number", [BIG, -BIG], ids=["positive", "negative"])
def test_more_digits_than_python_converts_survive(number: int) -> None:
    assert integer_of(text_of(number).encode()) == number
    grouped = text_of(number, ",")
    assert grouped.endswith(",000,007")
    assert grouped.replace(",", "") == text_of(number)


ODD = [b"", b"-", b"x", b"1.5", b"1e5", b"NaN", b"--1", b"\xff", b"1_000", b" 7", b"+7"]


@pytest.mark.parametrize("text", ODD)
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="is not an integer"):
        integer_of(text)


def test_more_than_max_digits_are_refused() -> None:
    assert integer_of(b"-" + b"9" * MAX_DIGITS) == 1 - 10**MAX_DIGITS
    with pytest.raises(ValueError, match="at most 10000 digits"):
        integer_of(b"9" * (MAX_DIGITS + 1))
