"""The pages on limits name every option, attribute and stream, with their values."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from django.test import override_settings

import django_nats.limits
from django_nats.conf.counters import counter_settings
from django_nats.conf.limit_streams import HORIZONS, limit_stream, quota_stream
from django_nats.conf.limits import LIMIT_OPTIONS, LimitSettings, limit_settings
from django_nats.limits import Decision, Limit, Quota, Usage
from django_nats.limits.algorithms import ALGORITHMS
from django_nats.limits.periods import SECONDS
from tests.test_docs import DOCS

pytestmark = pytest.mark.once

PAGE = (DOCS / "reference/limits.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table under a heading."""
    _, found, section = PAGE.partition(f"\n{heading}\n")
    assert found, f"the page has no section {heading}"
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    lines = re.findall(r"^\|(.*)\|$", table[0], re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return cells[2:]


def test_every_option_is_documented_with_its_default() -> None:
    documented = {
        row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in rows("## NATS_LIMITS")
    }
    assert documented.keys() == LIMIT_OPTIONS
    with override_settings(NATS_LIMITS=documented):
        spelt_out = limit_settings()
    with override_settings(NATS_LIMITS={}):
        assert spelt_out == limit_settings()


def test_every_option_that_is_documented_as_a_default_is_one() -> None:
    with override_settings(NATS_LIMITS={}, NATS_COUNTERS={"default": {}, "limits": {}}):
        assert limit_settings().alias == "limits"
    assert {each.upper() for each in LimitSettings.__dataclass_fields__} == LIMIT_OPTIONS


def test_every_attribute_of_a_decision_is_documented() -> None:
    assert {row[0].strip("`") for row in rows("### Decision")} == {*Decision.__slots__}


def test_every_algorithm_is_documented() -> None:
    assert [row[0].strip('`"') for row in rows("### Algorithms")] == [*ALGORITHMS]


def test_every_name_of_the_package_is_on_the_page() -> None:
    for name in django_nats.limits.__all__:
        assert re.search(rf"`{name}\b|:: {name}$", PAGE, re.MULTILINE), name


@pytest.mark.parametrize("class_", [Limit, Quota])
def test_every_public_method_is_documented(class_: type) -> None:
    methods = {
        name
        for name, method in inspect.getmembers(class_, inspect.isfunction)
        if not name.startswith("_")
    }
    assert {*re.findall(rf"automethod:: {class_.__name__}\.(\w+)", PAGE)} == methods


def test_every_attribute_of_a_usage_is_documented() -> None:
    attributes = {name for name in dir(Usage) if not name.startswith("_")}
    assert {row[0].strip("`") for row in rows("## A quota")} == attributes


def test_the_streams_are_documented_as_they_are_made() -> None:
    with override_settings(NATS_COUNTERS={"default": {"STREAM": "SHOP"}}):
        settings = counter_settings("default")
    streams = [limit_stream(settings, each.seconds) for each in HORIZONS]
    assert {each.history for each in streams} == {1}
    of_quotas = [quota_stream(settings, seconds) for seconds in SECONDS.values()]
    streams += {each.stream: each for each in of_quotas}.values()
    for stream, row in zip(streams, rows("## Streams"), strict=True):
        assert stream.max_age is not None
        number, unit = row[4].split()
        age = int(number) * {"minutes": 60, "hours": 3600, "days": 86400}[unit]
        described = (f"`{stream.stream}`", f"`{stream.prefix}.>`", stream.storage, stream.max_age)
        assert described == (*row[1:4], age)
