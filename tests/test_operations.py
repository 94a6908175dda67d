"""The table of operations is complete, and the tables of the docs agree with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from django_nats import counters
from django_nats.cache import NatsCache
from django_nats.counters import BoundCounter, Counter, CounterQuerySet, Counters
from tests.support.operations import CACHE, COUNTER, COUNTERS, PREFETCHING, Call
from tests.support.public import own_methods

DOCS = Path(__file__).parent.parent / "docs"

ON_COUNTERS = [*COUNTER.values(), *COUNTERS.values()]
NO_OPERATIONS: dict[type, set[str]] = {
    NatsCache: {
        *("get_backend_timeout", "make_and_validate_key", "validate_key"),  # these ask no server
        "watch",  # follows the feed until the loop is left: tests/cache/test_watching.py
    },
    Counter: {"tolist"},  # value() for JSON: tests/counters/test_rest_framework.py
    BoundCounter: {"keep", "tolist"},
    # Django's own, with the totals that with_counters() asks for: tests/counters/test_query.py.
    CounterQuerySet: {"aiterator", "delete", "iterator", "without_counters"},
}
"""Public methods without a row."""


def methods(calls: Iterable[Call]) -> set[str]:
    return {call.method for call in calls}


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (NatsCache, CACHE.values()),
        (Counter, COUNTER.values()),
        (BoundCounter, COUNTER.values()),
        (Counters, COUNTERS.values()),
        (CounterQuerySet, [PREFETCHING["with_counters"]]),
    ],
)
def test_every_public_method_is_in_the_table(kind: type, calls: Iterable[Call]) -> None:
    twins = {f"a{call.method}" for call in calls if call.twin}
    assert own_methods(kind).keys() - NO_OPERATIONS.get(kind, set()) == methods(calls) | twins


def test_every_operation_of_djangos_cache_is_in_the_table() -> None:
    """A method that a later Django adds would use threads, and may lose updates."""
    public = {name for name in dir(NatsCache) if not name.startswith("_")}
    assert {name for name in public if f"a{name}" in public} == methods(CACHE.values())


def test_every_function_that_prefetches_is_in_the_table() -> None:
    public = {name for name in counters.__all__ if name.endswith("prefetch_counters")}
    prefetching = PREFETCHING["prefetch_counters"].method
    assert public == {prefetching, f"a{prefetching}"}


# The docs ------------------------------------------------------------------------------------


Table = dict[str, list[str]]
"""The cells of a row after the first, by each name in the first."""


def tables(*header: str) -> Iterator[Table]:
    """Yield the tables of the docs that have these columns, from any page."""
    for page in sorted(DOCS.rglob("*.md")):
        for text in page.read_text().split(f"\n| {' | '.join(header)} |\n")[1:]:
            table: Table = {}
            for row in re.findall(r"^\|.*\|$", text.partition("\n\n")[0], re.MULTILINE)[1:]:
                first, *cells = row.strip("| ").split(" | ")
                for name in re.findall(r"`(\w+(?:\(.*?\))?)`", first):
                    assert name not in table, (page, name)
                    table[name] = cells
            yield table


def table_with(name: str, *header: str) -> Table:
    (found,) = (table for table in tables(*header) if name in table)
    return found


@pytest.mark.parametrize(("name", "calls"), [("touch", [*CACHE.values()]), ("take", ON_COUNTERS)])
def test_the_fail_open_results_are_documented(name: str, calls: list[Call]) -> None:
    documented = table_with(name, "Method", "Returns")
    assert documented.keys() - {"in"} == methods(calls)
    for call in calls:
        if call.name == call.method:  # the same cell explains its other cases
            (cell,) = documented[call.method]
            assert cell.startswith(call.documented or f"`{call.away!r}`"), call.name


def round_trips_of(call: Call, documented: Table) -> tuple[float, float]:
    """Return the least and the most that the docs name, as a range or as "2 or more"."""
    written = [f"{call.method}({name}" for name in call.kwargs]
    special = [name for name in documented if name.startswith(tuple(written))] if written else []
    _, cell = documented[special[0] if special else call.method]
    least, *most = map(int, re.findall(r"\d+", cell))
    return least, math.inf if "more" in cell else [least, *most][-1]


@pytest.mark.parametrize(
    ("name", "calls"),
    [("touch", [*CACHE.values()]), ("take", [*ON_COUNTERS, *PREFETCHING.values()])],
)
def test_the_round_trips_are_documented(name: str, calls: list[Call]) -> None:
    documented = table_with(name, "Operation", "Requests", "Round trips")
    asking = [call for call in calls if call.asks or call.or_more]
    assert {name.partition("(")[0] for name in documented} == methods(asking)
    for call in asking:
        least, most = round_trips_of(call, documented)
        assert least <= call.round_trips <= most, call.name


def test_the_near_cache_page_names_the_operations_served_from_copies() -> None:
    (page,) = (DOCS / "reference").glob("near?cache.md")
    sentences = re.split(r"[.:;]\s", page.read_text())
    (sentence,) = (each for each in sentences if "`get_or_set`" in each)
    served = methods(call for call in CACHE.values() if call.served)
    assert {*re.findall(r"`(\w+)`", sentence)} == served
