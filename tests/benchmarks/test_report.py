"""Tables from a handwritten results document."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.contestants import ASYNCIO, DJANGO_REDIS, DJANGO_REDIS_CACHE, NATS_FLOOR, OURS
from tests.benchmarks.figures import described, kind, spread, written
from tests.benchmarks.questions import NAMES
from tests.benchmarks.results import Document, Goal, LeftOut

GET = {"operation": "get", "size": 100, "keys": 1, "threads": 1}
SET = {**GET, "operation": "set"}
GET_MANY = {**GET, "operation": "get_many", "keys": 100}
THREADS = {**GET, "threads": 8}


def add(
    document: Document, question: str, cell: dict[str, Any], figure: str, **rounds: Any
) -> None:
    names = {"ours": OURS, "asyncio": ASYNCIO, "redis": DJANGO_REDIS_CACHE, "floor": NATS_FLOOR}
    names["django_redis"] = DJANGO_REDIS
    for name, values in rounds.items():
        result = document.result(question, names[name], cell)
        result.rounds += [{figure: value} for value in values]


@pytest.fixture
def document() -> Document:
    document = Document({"python": "3.13.0", "cores": 2, "versions": {"nats (server)": "2.15.1"}})
    # The order of measurement differs from the order in which contestants are shown.
    add(document, "sync", GET, "p50_us", redis=[200, 210, 190], floor=[40], ours=[100, 60, 80])
    add(document, "sync", SET, "p50_us", redis=[220], floor=[50], ours=[120])
    add(document, "sync", GET_MANY, "p50_us", redis=[1000], ours=[2500])
    add(document, "sync", THREADS, "rate", django_redis=[10_000], ours=[48_321])
    for entries in (1000, 1_000_000):
        cell = {"entries": entries}
        add(document, "growth", cell, "get.p50_us", ours=[100], django_redis=[90])
        add(document, "growth", cell, "clear.ms", ours=[1.5], django_redis=[entries / 1000])
    document.left_out = [LeftOut("pylibmc", "not installed")]
    document.goals = [Goal("get, 1 thread", 0.84, "≤ 1.0", "≤ 0.70", "reach", 1.2)]
    return document


def shown(document: Document, width: int) -> str:
    file = io.StringIO()
    report.show(document, Console(width=width, file=file, force_terminal=True))
    return file.getvalue()


def plain(document: Document, width: int = 100) -> list[str]:
    return re.sub("\x1b\\[[0-9;]*m", "", shown(document, width)).splitlines()


def row(lines: list[str], head: str, name: str) -> list[str]:
    """Return the words of a contestant's row in the table whose heading begins with the text."""
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    found = next(line for line in lines[start:] if line.startswith(name))
    return found.removeprefix(name).replace("×", "x").split()  # noqa: RUF001


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0271, "0.027"),
        (0.5, "0.50"),
        (0.996, "1.0"),
        (9.949, "9.9"),
        (9.96, "10"),
        (482.6, "483"),
        (999.7, "1,000"),
        (48_321, "48,300"),
        (-3.21, "-3.2"),
    ],
)
def test_figures_have_their_significant_digits(value: float, text: str) -> None:
    assert written(value) == text


def test_the_spread_covers_only_rounds_with_the_figure() -> None:
    found = spread([{"rate": 3}, {"rate": 1}, {"p50_us": 9}, {"rate": 8}], "rate")
    assert found is not None
    assert (found.median, found.low, found.high) == (3, 1, 8)
    assert spread([{"p50_us": 9}], "rate") is None


def test_descriptions_of_cells_omit_default_values() -> None:
    assert described(GET_MANY) == ["get_many", "100 B", "100 keys"]
    assert described({"operation": "get", "size": 10_000, "threads": 8}) == [
        "get",
        "10 kB",
        "8 threads",
    ]
    assert described({"processes": 1}) == ["1 process"]


def test_tables_list_contestants_in_a_fixed_order(document: Document) -> None:
    lines = plain(document)
    start = next(number for number, line in enumerate(lines) if line.startswith("median, µs"))
    for line, name in zip(
        lines[start + 2 : start + 5], [OURS, DJANGO_REDIS_CACHE, NATS_FLOOR], strict=True
    ):
        assert line.startswith(name)


def test_tables_show_medians_and_ratios_to_the_reference(document: Document) -> None:
    lines = plain(document)
    assert row(lines, "median, µs", OURS) == ["80", "0.40x", "120", "0.55x", "2,500", "2.5x"]
    assert row(lines, "median, µs", DJANGO_REDIS_CACHE) == ["200", "220", "1,000"]
    assert row(lines, "median, µs", NATS_FLOOR) == ["40", "0.20x", "50", "0.23x", "—"]


def test_without_djangos_redis_cache_the_reference_is_django_redis(document: Document) -> None:
    lines = plain(document)
    assert row(lines, "a second", OURS) == ["48,300", "4.8x"]
    assert row(lines, "a second", DJANGO_REDIS) == ["10,000"]


def test_percentages_and_negative_references_have_no_ratio(document: Document) -> None:
    add(document, "growth", {"entries": 7}, "expire.gone_percent", django_redis=[2], ours=[100])
    assert row(plain(document), "removed after 0.5 s, %", OURS) == ["100"]
    document = Document({})
    add(document, "startup", {"until": "setup"}, "ms", redis=[-3], ours=[12])
    assert row(plain(document), "ms ", OURS) == ["12"]


def test_extreme_ratios_are_abbreviated() -> None:
    document = Document({})
    add(document, "startup", {"until": "setup"}, "ms", redis=[2000], ours=[1.5])
    add(document, "startup", {"until": "first get"}, "ms", redis=[1], ours=[987_654])
    assert row(plain(document), "ms ", OURS) == ["1.5", "<0.01x", "988,000", ">999x"]


def test_the_best_cache_is_bold(document: Document) -> None:
    bold = re.findall("\x1b\\[1m *([0-9,.]+)", shown(document, 100))
    assert bold == ["80", "120", "1,000", "48,300", "90", "90", "1.5", "1.0"]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_tables_fit_into_the_terminal(document: Document, width: int) -> None:
    for size in (10_000, 500_000):
        for cell in (GET, SET, GET_MANY):
            wide = {**cell, "size": size}
            add(document, "sync", wide, "p50_us", redis=[400_000], ours=[987_654], floor=[10_700])
    lines = plain(document, width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    assert row(lines, "median, µs", OURS)[:6] == ["80", "0.40x", "120", "0.55x", "2,500", "2.5x"]


def test_conditions_goals_and_omissions_are_shown(document: Document) -> None:
    text = "\n".join(plain(document))
    assert "python: 3.13.0 · cores: 2 · versions: nats (server) 2.15.1" in text
    assert re.search(r"get, 1 thread +0\.84 +1\.2 +≤ 1\.0 +≤ 0\.70 +reach", text)
    assert "pylibmc: not installed" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_tables_of_known_figures(name: str) -> None:
    assert all(kind(view.figure) for view in report.VIEWS[name])
