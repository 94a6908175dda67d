"""Tables of a results document, printed to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import goals
from .contestants import DJANGO_REDIS, DJANGO_REDIS_CACHE, LOCMEM, in_order, is_bound
from .figures import described, kind, spread, written
from .questions import question
from .results import Cell, Document

REFERENCES = (DJANGO_REDIS_CACHE, DJANGO_REDIS)
_NAME, _FIGURE = 26, 13
_TIMES = "×"  # noqa: RUF001
_STYLES = {goals.AFTER: "bold green", goals.REACH: "green", goals.MISSED: "bold red"}

Medians = dict[str, dict[str, float]]
"""Keyed by contestant, then by cell."""


def _everywhere(cell: Cell) -> bool:
    return True


@dataclass(frozen=True)
class View:
    """A figure to show, and the cells for which it is shown: by default all that have it."""

    figure: str
    cells: Callable[[Cell], bool] = _everywhere


def _alone(cell: Cell) -> bool:
    return bool(cell.get("threads") == 1)


def _together(cell: Cell) -> bool:
    return not _alone(cell)


def _common(cell: Cell) -> bool:
    return bool(cell["size"] == 100 and cell.get("concurrency", 100) == 100)


def _reading(cell: Cell) -> bool:
    return "objects" in cell


def _counting(cell: Cell) -> bool:
    return not _reading(cell)


def _at_once(cell: Cell) -> bool:
    return cell.get("processes", 1) > 1


def _one_caller(cell: Cell) -> bool:
    return not _at_once(cell)


_CALLS = (View("p50_us", _alone), View("rate", _together))
_PROCESSOR = (View("client_us", _common), View("server_us", _common))
_REQUESTS = tuple(map(View, ("rate", "p50_us", "p99_us", "peak_mb", "connections")))
VIEWS: dict[str, Sequence[View]] = {
    "sync": (*_CALLS, *_PROCESSOR),
    "async": (View("rate"), View("connections"), View("peak_mb"), *_PROCESSOR),
    "near": (View("p50_us"), View("p99_us"), View("client_us")),
    "sessions": tuple(map(View, ("p50_us", "p99_us", "client_us", "server_us"))),
    "requests": _REQUESTS,
    "network": _CALLS,
    "contention": (View("rate"), View("p99_us"), View("client_us"), View("server_us")),
    "counters": (View("rate", _counting), View("p50_us", _reading), View("client_us")),
    "limits": (
        View("p50_us", _one_caller),
        View("rate", _at_once),
        View("counted_percent"),
        *(View("client_us"), View("server_us")),
    ),
    "growth": (
        *(View(f"fill.{figure}") for figure in ("rate", "client_us", "server_us")),
        *(View(f"fill.{figure}") for figure in ("resident_bytes", "reported_bytes")),
        *(View(f"{operation}.p50_us") for operation in ("get", "get_many", "overwrite")),
        *(View(f"{operation}.p50_us") for operation in ("delete", "set")),
        *(View(f"iter_keys.{figure}") for figure in ("first_ms", "ms", "concurrent_ms")),
        *(View(f"expire.{figure}") for figure in ("gone_percent", "server_us")),
        View("clear.ms"),
    ),
    "history": (
        *(View(f"{part}.rate") for part in ("before", "past")),
        View("kept"),
        *(View(f"{part}.server_us") for part in ("before", "past")),
    ),
    "limit_keys": tuple(
        View(figure)
        for figure in ("rate", "client_us", "server_us", "resident_bytes", "reported_bytes")
    ),
    "startup": (View("ms"),),
}


def _compared(contestant: str) -> bool:
    """Return True if a contestant may be marked as the best.

    Bounds are not caches, and LocMemCache shares no values between processes.
    """
    return contestant != LOCMEM and not is_bound(contestant)


def show(document: Document, console: Console) -> None:
    """Print the tables of each question, the goals, and what was left out."""
    _print = partial(console.print, highlight=False, markup=False)
    columns = max(1, (console.width - _NAME) // (_FIGURE + 2))
    _print(_conditions(document))
    for name in dict.fromkeys(result.question for result in document.results):
        _print(Text(f"\n{question(name).TITLE}", "bold underline"))
        for view in VIEWS[name]:
            for table in _tables(document, name, view, columns):
                _print()
                _print(table)
    if document.results:
        _print(
            "\nMedians of the rounds. Bold: the best cache that shares values between processes. "
            f"{_TIMES}: ratio to {REFERENCES[0]}, or to {REFERENCES[1]} if that is missing."
        )
    if document.goals:
        _print(Text("\nGoals", "bold underline"))
        _print(_goals(document))
    if document.left_out:
        _print(Text("\nLeft out", "bold underline"))
        for each in document.left_out:
            _print(Padding(Text.assemble((each.name, "bold"), f": {each.why}"), (0, 0, 0, 2)))


def _conditions(document: Document) -> str:
    """Return the conditions as one text, under the names that the document gives them."""
    words = []
    for name, value in document.conditions.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{each} {version}" for each, version in value.items())
        words.append(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    return " · ".join(words)


def _tables(document: Document, name: str, view: View, count: int) -> Iterator[Table]:
    """Yield tables of the cells in which a figure was measured, ``count`` cells in each."""
    medians: Medians = {}
    columns: dict[str, None] = {}
    for result in document.results:
        if result.question == name and view.cells(result.cell):
            found = spread(result.rounds, view.figure)
            if found:
                column = "\n".join(described(result.cell))
                columns[column] = None
                medians.setdefault(result.contestant, {})[column] = found.median
    for first in range(0, len(columns), count):
        yield _table(view.figure, list(columns)[first : first + count], medians)


def _table(figure: str, columns: Sequence[str], medians: Medians) -> Table:
    operation, _, _ = figure.rpartition(".")
    head = f"{operation}\n{kind(figure).title}".strip()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(head, width=_NAME)
    for column in columns:
        table.add_column(column, justify="right", width=_FIGURE, vertical="bottom")
    for contestant in in_order(medians):
        if not medians[contestant].keys().isdisjoint(columns):
            cells = [_cell(figure, column, contestant, medians) for column in columns]
            table.add_row(contestant, *cells)
    return table


def _cell(figure: str, column: str, contestant: str, medians: Medians) -> Text:
    value = medians[contestant].get(column)
    if value is None:
        return Text("—", "dim")
    among = [row[column] for name, row in medians.items() if column in row and _compared(name)]
    best = (max if kind(figure).more_is_better else min)(among, default=None)
    style = "bold" if value == best and _compared(contestant) else ""
    reference = next((name for name in REFERENCES if column in medians.get(name, ())), None)
    base = medians[reference][column] if reference else 0
    shown = base > 0 and contestant != reference and kind(figure).unit not in ("%", _TIMES)
    ratio = _ratio(value / base) if shown else ""
    text = f"{written(value):>6}"
    return Text(text, style).append(ratio.rjust(_FIGURE - len(text)), "not bold dim")


def _ratio(ratio: float) -> str:
    """Return a ratio as a text that is short enough to be shown beside its figure."""
    if ratio < 0.01:
        return f"<0.01{_TIMES}"
    return f"{written(ratio) if ratio < 1000 else '>999'}{_TIMES}"


def _goals(document: Document) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("")
    for column in ("measured", "asyncio", "reach", "after", "verdict"):
        table.add_column(column, justify="right")
    for goal in document.goals:
        verdict = Text(goal.verdict, _STYLES.get(goal.verdict, ""))
        measured = [each and written(each) for each in (goal.measured, goal.with_asyncio)]
        table.add_row(
            goal.name, *(each or "—" for each in measured), goal.reach, goal.after, verdict
        )
    return table
