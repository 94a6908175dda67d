"""Counters in templates, and the filter ``compact``."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.conf import settings
from django.template import engines
from django.test import override_settings
from django.utils import translation

from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable

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
def test_compact_abbreviates_integers(value: object, expected: str) -> None:
    assert render(value) == expected


def test_compact_is_localised() -> None:
    with translation.override("de"):
        assert render(1999) == "1,9K"


def test_compact_takes_a_counter(counters: Counters) -> None:
    counters.incr("home", 12_345)
    assert render(Counter("home")) == "12K"


def test_an_unreadable_counter_shows_nothing_under_fail_open(
    own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server, FAIL_OPEN=True)
    own_server.kill()
    for filters in ("|compact", ""):
        assert render(Counter("home"), "{{ value" + filters + " }}") == ""
    with pytest.raises(CounterUnavailable):
        render(Counter("home"), "{{ value|add:0 }}")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ value|add:0 }}", "12,345"),
        ("{{ value|floatformat:'g' }}", "12,345"),
        ("{% load humanize %}{{ value|intcomma }}", "12,345"),
        ("{{ value|add:0|json_script:'v' }}", ">12345</script>"),
        (
            "{% load i18n %}{% blocktranslate count n=value|add:0 %}one{% plural %}{{ n }} views"
            "{% endblocktranslate %}",
            "12,345 views",
        ),
    ],
)
def test_other_filters_take_a_counter_as_an_integer(
    counters: Counters, source: str, expected: str
) -> None:
    counters.incr("home", 12_345)
    apps = [*settings.INSTALLED_APPS, "django.contrib.humanize"]
    with override_settings(USE_THOUSAND_SEPARATOR=True, INSTALLED_APPS=apps):
        assert render(Counter("home"), source).endswith(expected)
