"""The pages on limits name every option, attribute and stream, with their values."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from django.test import override_settings

import django_nats.limits
from django_nats.conf.counters import counter_settings
from django_nats.conf.limit_streams import HORIZONS, limit_stream
from django_nats.conf.limits import LIMIT_OPTIONS, LimitSettings, limit_settings
from django_nats.limits import Decision, Limit
from django_nats.limits.algorithms import ALGORITHMS
from tests.test_docs import DOCS

pytestmark = pytest.mark.once

PAGE = (DOCS / "reference/limits.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table under a heading."""
    _, found, section = PAGE.partition(f"\n{heading}\n")
    assert found, f"the page has no section {heading}"
    lines = re.findall(r"^\|(.*)\|$", section.partition("\n#")[0], re.MULTILINE)
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


def test_every_public_method_of_a_limit_is_documented() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(Limit, inspect.isfunction)
        if not name.startswith("_")
    }
    assert {*re.findall(r"automethod:: Limit\.(\w+)", PAGE)} == methods


def test_the_streams_are_documented_as_they_are_made() -> None:
    with override_settings(NATS_COUNTERS={"default": {"STREAM": "SHOP"}}):
        settings = counter_settings("default")
    for horizon, (_, name, subjects, age) in zip(HORIZONS, rows("## Streams"), strict=True):
        stream = limit_stream(settings, horizon.seconds)
        assert stream.max_age is not None
        assert name == f"`{stream.stream}`"
        assert subjects == f"`{stream.prefix}.>`"
        number, unit = age.split()
        assert int(number) * {"minutes": 60, "hours": 3600, "days": 86400}[unit] == stream.max_age
        assert (stream.storage, stream.history) == ("memory", 1)
