"""A counter where a number is expected: in templates, formats and comparisons."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.template import Context, Engine

from django_nats.counters import Counter, Counters


@pytest.fixture
def five(counters: Counters) -> Counter:
    counter = Counter("k")
    counter.set(5)
    return counter


def test_a_counter_converts_to_numbers_and_text(five: Counter) -> None:
    assert int(five) == 5
    assert str(five) == "5"
    assert f"{five}" == "5"
    five.incr(1_234_567)
    assert f"{five:,}" == "1,234,572"
    assert f"{five:>10}" == "   1234572"
    assert bool(five) is True
    assert bool(Counter("none")) is False


@pytest.mark.parametrize("number", [5, 5.0, Decimal(5), Fraction(5)], ids=repr)
def test_a_counter_compares_with_numbers_by_its_total(five: Counter, number: Any) -> None:
    assert five == number
    assert number == five
    assert (five != number) is False
    assert five <= number <= five
    assert not five < number
    assert not five > number
    assert five < number + 1
    assert five > number - 1
    assert five >= number
    assert number - 1 < five < number + 1


def test_counters_compare_by_their_totals(five: Counter) -> None:
    other = Counter("other")
    assert other < five
    assert five != other
    other.set(5)
    assert five == other
    assert max([other, five], key=int) is other


@pytest.mark.parametrize("other", ["5", None, [], object()], ids=["text", "none", "list", "object"])
def test_a_counter_does_not_compare_with_other_objects(other: Any) -> None:
    counter = Counter("k")  # there are no settings, so any request would fail
    assert counter != other
    with pytest.raises(TypeError):
        _ = counter < other


OPERATORS: dict[str, Callable[[Any], Any]] = {
    "int(counter) + …": lambda counter: counter + 1,
    "… + int(counter)": lambda counter: sum([counter]),
    "int(counter) - …": lambda counter: counter - 1.0,
    "… - int(counter)": lambda counter: Decimal(1) - counter,
    "int(counter) * …": lambda counter: counter * Fraction(1),
    "… * int(counter)": lambda counter: 2 * counter,
    "int(counter) / …": lambda counter: counter / counter,
    "… / int(counter)": lambda counter: 2 / counter,
    "int(counter) // …": lambda counter: counter // 2,
    "… // int(counter)": lambda counter: 2 // counter,
    "int(counter) % …": lambda counter: counter % 2,
    "… % int(counter)": lambda counter: 2 % counter,
    "-int(counter)": lambda counter: -counter,
}


@pytest.mark.parametrize("instead", OPERATORS)
def test_calculating_with_a_counter_raises_an_error_that_says_what_to_write(instead: str) -> None:
    with pytest.raises(TypeError, match=f"is not an int. Write {re.escape(instead)} to calc"):
        OPERATORS[instead](Counter("k"))


def test_a_counter_repeats_sequences_and_fills_in_formats(five: Counter) -> None:
    assert "-" * five == "-----"
    assert [0] * five == [0] * 5
    assert "%d %s".__mod__((five, five)) == "5 5"
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = five + object()  # type: ignore[operator]


def test_a_counter_is_unhashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter("k"))


def test_repr_sends_no_request() -> None:
    assert repr(Counter("page.home")) == "Counter('page.home')"
    counter = Counter("clicks", "eu.west", alias="other")
    assert repr(counter) == "Counter('clicks', 'eu.west', alias='other')"
    assert counter.name == ("clicks", "eu.west")
    assert Counter("page.home").name == "page.home"


def test_copies_refer_to_the_same_counter(five: Counter) -> None:
    for twin in (copy.copy(five), copy.deepcopy(five), pickle.loads(pickle.dumps(five))):
        assert repr(twin) == repr(five)
        twin.incr()
    assert five == 8


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ views }}", "5"),
        ("{{ views.value }}", "5"),
        ("{{ views|add:1 }}", "6"),
        ("{{ views|stringformat:'05d' }}", "00005"),
        ("{% load humanize %}{{ views|intcomma }}", "5"),
        ("{% if views > 4 %}many{% endif %}", "many"),
        ("{% if views == 5 %}five{% endif %}", "five"),
        ("{% if views %}some{% endif %}", "some"),
        ("{{ views }} view{{ views.value|pluralize }}", "5 views"),
    ],
)
def test_templates_show_the_total(five: Counter, source: str, expected: str) -> None:
    libraries = {"humanize": "django.contrib.humanize.templatetags.humanize"}
    template = Engine(libraries=libraries).from_string(source)
    assert template.render(Context({"views": five})) == expected
