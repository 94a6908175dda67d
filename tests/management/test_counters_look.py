"""``manage.py nats counters top`` and ``show``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_nats.counters import Counter, Counters
from tests.management.conftest import Nats, count
from tests.servers import eventually

FailingNats = Callable[..., tuple[str, str]]
DEAD = "nats://127.0.0.1:1"


@pytest.fixture
def clicks(counters: Counters) -> Counters:
    count(counters, {"clicks.eu.home": 1200, "clicks.us.home": 30, "clicks.us.about": 30})
    count(counters, {"clicks.eu": -5, "views": 99})
    return counters


def test_top_sorts_the_matching_counters(clicks: Counters, nats: Nats) -> None:
    assert nats("counters", "top", "clicks.>") == (
        "1,200  clicks.eu.home\n"
        "   30  clicks.us.about\n"
        "   30  clicks.us.home\n"
        "   -5  clicks.eu\n"
    )  # fmt: skip
    assert nats("counters", "top", "clicks.*.home", "-n", "1") == "1,200  clicks.eu.home\n"


def test_top_without_a_pattern_lists_all_counters(clicks: Counters, nats: Nats) -> None:
    assert nats("counters", "top", "-n", "2") == "1,200  clicks.eu.home\n   99  views\n"


def test_top_reads_more_than_one_batch(counters: Counters, nats: Nats) -> None:
    count(counters, {f"page.{number}": number for number in range(1, 1501)})

    assert nats("counters", "top", "page.*", "-n", "2") == "1,500  page.1500\n1,499  page.1499\n"


@pytest.mark.parametrize("parts", [("host", "a.com"), ("host", r"a\.com"), ("a\\b",), ("é ü",)])
def test_show_accepts_the_names_that_top_prints(
    counters: Counters, nats: Nats, parts: tuple[str, ...]
) -> None:
    Counter(*parts).incr(7)

    total, _, name = nats("counters", "top").rstrip("\n").partition("  ")

    assert nats("counters", "show", name) == f"{name}: {total}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top", "none.>"], "No counter matches none.>"),
        (["top", "a.>.b"], "'>' can only be the last token"),
        (["top", "-n", "0"], "-n must be at least 1, not 0"),
        (["top", "--alias", "eu"], 'NATS_COUNTERS has no alias "eu", only default'),
        (["show", "a..b"], "Counter name 'a..b'"),
        (["show", "a", "--alias", "eu"], 'NATS_COUNTERS has no alias "eu", only default'),
    ],
    ids=str,
)
def test_a_mistake_in_the_arguments_is_named(
    counters: Counters, failing_nats: FailingNats, arguments: list[str], words: str
) -> None:
    assert words in failing_nats("counters", *arguments)[1]


@pytest.mark.parametrize("arguments", [["top"], ["show", "a"]], ids=str)
def test_an_unreachable_server_is_an_error_even_with_fail_open(
    configure: Any, failing_nats: FailingNats, arguments: list[str]
) -> None:
    configure(LOCATION=DEAD, FAIL_OPEN=True)

    assert f"No connection to NATS at {DEAD}" in failing_nats("counters", *arguments)[1]


def test_show_distinguishes_0_from_never_counted(clicks: Counters, nats: Nats) -> None:
    Counter("back").incr()
    Counter("back").decr()

    assert nats("counters", "show", "views", "back", "none") == (
        "views: 99\nback: 0\nnone: never counted, or reset\n"
    )


def test_show_lists_the_sources_of_a_sum(configure: Any, nats: Nats) -> None:
    regions = [configure(alias) for alias in ("eu", "us")]
    streams = [region.settings.stream.stream for region in regions]
    for number, region in enumerate(regions):
        region.incr("k", 1000 + number)
    total = configure("default", SOURCES=streams)
    assert eventually(lambda: total.get_many(["k"]) == {"k": 2001})

    assert nats("counters", "show", "k") == (
        f"k: 2,001\n  {streams[0]}: 1,000\n  {streams[1]}: 1,001\n"
    )
