"""The template filter."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.template import engines
from django.utils import translation

from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer

from .conftest import Configure


def render(value: object, source: str = "{{ value|compact }}") -> str:
    template = engines["django"].from_string("{% load django_nats %}" + source)
    return template.render({"value": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1K"),
        (1049, "1K"),
        (1999, "1.9K"),
        (9999, "9.9K"),
        (10_999, "10K"),
        (999_999, "999K"),
        (1_000_000, "1M"),
        (5_678_901, "5.6M"),
        (1_234_567_890, "1.2B"),
        (9_999_999_999_999, "9.9T"),
        (10**18, "1000000T"),
        (-1999, "-1.9K"),
        ("1999", "1.9K"),
        ("", ""),
        ("many", "many"),
        (1999.5, "1999.5"),
        (Decimal("1999.5"), "1999.5"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_compact(value: object, expected: str) -> None:
    assert render(value) == expected


def test_in_another_language() -> None:
    with translation.override("de"):
        assert render(1999) == "1,9K"


def test_of_a_counter(counters: Counters) -> None:
    counters.incr("home", 12_345)
    assert render(Counter("home")) == "12K"


def test_of_a_counter_that_cannot_be_read(own_server: NatsServer, configure: Configure) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2, FAIL_OPEN=True)
    own_server.kill()
    assert render(Counter("home")) == ""
