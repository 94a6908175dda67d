"""A counter where a number is expected: in templates, formats and comparisons."""

from __future__ import annotations

import copy
import pickle
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


def test_conversions(five: Counter) -> None:
    assert int(five) == 5
    assert str(five) == "5"
    assert f"{five}" == "5"
    five.incr(1_234_567)
    assert f"{five:,}" == "1,234,572"
    assert f"{five:>10}" == "   1234572"
    assert bool(five) is True
    assert bool(Counter("none")) is False


@pytest.mark.parametrize("number", [5, 5.0, Decimal(5), Fraction(5)], ids=repr)
def test_comparisons(five: Counter, number: Any) -> None:
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
def test_what_is_no_number_is_not_compared(other: Any) -> None:
    counter = Counter("k")  # without settings: nothing is asked
    assert counter != other
    with pytest.raises(TypeError):
        _ = counter < other


def test_it_cannot_be_hashed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter("k"))


def test_its_repr_asks_nobody() -> None:
    assert repr(Counter("page.home")) == "Counter('page.home')"
    counter = Counter("clicks", "eu.west", alias="other")
    assert repr(counter) == "Counter('clicks', 'eu.west', alias='other')"
    assert counter.name == ("clicks", "eu.west")
    assert Counter("page.home").name == "page.home"


def test_copies_are_of_the_same_counter(five: Counter) -> None:
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
def test_in_templates(five: Counter, source: str, expected: str) -> None:
    libraries = {"humanize": "django.contrib.humanize.templatetags.humanize"}
    template = Engine(libraries=libraries).from_string(source)
    assert template.render(Context({"views": five})) == expected
