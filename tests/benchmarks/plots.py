"""Pictures of a results document: one SVG file for each question.

The bars are drawn on a white card, since no text colour is legible (a contrast of 4.5) both on
light and on dark pages. Our bars are blue and all others grey, so that the pictures can be read by
colour-blind people and when they are printed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextPath

from .contestants import OURS, in_order, is_bound
from .figures import Spread, kind, spread, written
from .operations import TASKS
from .results import Document, Result

# Lengths are pixels of the picture, which is as wide as the text of the documentation.
WIDTH = 736
MARGIN = 20
TOP = 70
GAP = 20  # between panels
HEAD = 24  # a panel's title
FOOT = 30
ROW = 17
APART = 6  # between groups of rows
BAR = 11
TEXT = 10.5

INK, MUTED, LINE = "#1f2328", "#59636e", "#d1d9e0"
BLUE, PALE, GREY = "#0969da", "#79b0ef", "#b4bcc6"
FONTS = "Arial, 'Liberation Sans', Arimo, Helvetica, sans-serif"

STYLE: dict[Any, str] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "django-nats",
    "font.family": "DejaVu Sans",
}


@dataclass(frozen=True)
class Panel:
    """The bars of one figure in one cell, which some of its parameters identify."""

    title: str
    figure: str
    cell: Mapping[str, Any] = field(default_factory=dict)


Panels = Sequence[Panel]


@dataclass(frozen=True)
class Picture:
    """The picture of a question: panels, with ``columns`` of them side by side.

    With ``by``, a contestant has a bar for each value of that parameter of the cells. With
    ``common``, all panels have the same scale.
    """

    title: str
    subtitle: str
    panels: Panels
    columns: int = 2
    by: str | None = None
    common: bool = False


_ONE = {"size": 100, "keys": 1, "threads": 1}
_MANY = {"size": 100, "keys": 100, "threads": 1}
_HIT = {"operation": "hit", "keys": "one key", "rates": 1, "processes": 1}
_HITS = _HIT | {"processes": 8}
_HUNDRED = {"size": 100, "concurrency": 100}

PICTURES = {
    "sync": Picture(
        "How long does a view wait for one operation?",
        "Median in µs, one thread, values of 100 bytes. Shorter is better.",
        (
            Panel("get", "p50_us", {"operation": "get", **_ONE}),
            Panel("set", "p50_us", {"operation": "set", **_ONE}),
            Panel("get_many, 100 keys", "p50_us", {"operation": "get_many", **_MANY}),
            Panel("set_many, 100 keys", "p50_us", {"operation": "set_many", **_MANY}),
        ),
    ),
    "async": Picture(
        "How many operations do 100 coroutines get done?",
        "Calls a second in one process, values of 100 bytes. Longer is better.",
        (
            Panel(
                "aget, by tasks of one program",
                "rate",
                {"operation": "get", "keys": 1, **_HUNDRED, "callers": TASKS},
            ),
            Panel("aget, by requests", "rate", {"operation": "get", "keys": 1, **_HUNDRED}),
            Panel("aset, by requests", "rate", {"operation": "set", "keys": 1, **_HUNDRED}),
            Panel("aget_many, 10 keys", "rate", {"operation": "get_many", **_HUNDRED}),
        ),
    ),
    "near": Picture(
        "What does a near cache save?",
        "Median in µs, one thread, values of 100 bytes. Shorter is better.",
        (
            Panel("get", "p50_us", {"operation": "get"}),
            Panel("get_many, 100 keys", "p50_us", {"operation": "get_many"}),
            Panel("aget", "p50_us", {"operation": "aget"}),
            Panel("first get of a key", "p50_us", {"operation": "first get"}),
        ),
    ),
    "sessions": Picture(
        "How long does a request wait for its session?",
        "Median in microseconds, to load, change and save it, and asynchronously. "
        "Shorter is better.",
        (
            Panel("load and save", "p50_us", {"operation": "load and save"}),
            Panel("aload and asave", "p50_us", {"operation": "aload and asave"}),
        ),
    ),
    "requests": Picture(
        "How many requests does a view with six cache operations serve?",
        "Requests a second of one server process, 50 clients. Longer is better.",
        (
            Panel("WSGI: gunicorn, 8 threads", "rate", {"interface": "WSGI"}),
            Panel("ASGI: granian, uvloop", "rate", {"interface": "ASGI"}),
        ),
    ),
    "network": Picture(
        "What remains when the server is 1 ms away?",
        "Behind a proxy that delays everything by half a millisecond each way.",
        (
            Panel("get: µs, shorter is better", "p50_us", {"operation": "get", **_ONE}),
            Panel(
                "get_many, 100 keys: µs, shorter is better",
                "p50_us",
                {"operation": "get_many", **_MANY},
            ),
            Panel("100 aget: a second, longer is better", "rate", {"operation": "get", **_HUNDRED}),
            Panel("ASGI: requests a second, longer is better", "rate", {"interface": "ASGI"}),
        ),
    ),
    "contention": Picture(
        "How fast can several processes count up one key?",
        "Increments a second of all processes together, none lost. Longer is better.",
        (
            Panel("1 process", "rate", {"processes": 1}),
            *(Panel(f"{count} processes", "rate", {"processes": count}) for count in (2, 4, 8)),
        ),
        common=True,
    ),
    "counters": Picture(
        "What do increments cost that nobody waits for, and the totals of a page?",
        "Increments a second of one process: longer is better. µs for 100 totals: shorter is.",
        (
            Panel("incr_later, 1 thread", "rate", {"operation": "incr_later", "threads": 1}),
            Panel("incr_later, 8 threads", "rate", {"operation": "incr_later", "threads": 8}),
            Panel("totals of 100 objects, µs", "p50_us", {"objects": 100}),
        ),
        columns=3,
    ),
    "limits": Picture(
        "What does a rate limit cost, when it lets through and when it refuses?",
        "Medians in µs of one caller: shorter is better. Hits a second: longer is.",
        (
            Panel("a hit, sliding window, µs", "p50_us", _HIT | {"algorithm": "sliding"}),
            Panel("a refusal, µs", "p50_us", {"operation": "refusal"}),
            Panel("8 processes, sliding", "rate", _HITS | {"algorithm": "sliding"}),
            Panel("8 processes, fixed", "rate", _HITS | {"algorithm": "fixed"}),
        ),
    ),
    "growth": Picture(
        "How does each cost grow with the number of entries?",
        "By number of entries of 100 bytes. Shorter is better.",
        (
            Panel("get, µs", "get.p50_us"),
            Panel("get_many of 100, µs", "get_many.p50_us"),
            Panel("overwrite, µs", "overwrite.p50_us"),
            Panel("delete, µs", "delete.p50_us"),
            Panel("iter_keys, ms", "iter_keys.ms"),
            Panel("concurrent set, ms", "iter_keys.concurrent_ms"),
            Panel("clear, ms", "clear.ms"),
            Panel("memory, bytes/entry", "fill.resident_bytes"),
        ),
        columns=4,
        by="entries",
    ),
    "history": Picture(
        "What does a counter's history cost?",
        "Increments a second, written behind, many counters in turn. Longer is better.",
        (
            Panel("before HISTORY is full", "before.rate"),
            Panel("past HISTORY", "past.rate"),
        ),
        common=True,
    ),
    "limit_keys": Picture(
        "How much memory do the counters of many keys take?",
        "Each key is hit once. Bytes a key: shorter is better. Hits a second: longer is.",
        (
            Panel("resident memory, bytes", "resident_bytes"),
            Panel("size by the server, bytes", "reported_bytes"),
            Panel("hits a second", "rate"),
        ),
        columns=3,
    ),
    "startup": Picture(
        "What does the package add to the start of a process?",
        "Milliseconds more than with LocMemCache. Shorter is better.",
        (
            Panel("until django.setup() returns", "ms", {"until": "setup"}),
            Panel("until a first get is answered", "ms", {"until": "first get"}),
        ),
    ),
}


@dataclass(frozen=True)
class Row:
    """One line: a bar for each panel, or only the name of the contestant whose bars follow."""

    label: str
    contestant: str
    bars: Sequence[Spread | None]

    @property
    def ours(self) -> bool:
        return self.contestant.startswith(OURS)

    @property
    def weight(self) -> str:
        return "bold" if self.ours and self.label == self.contestant else "normal"

    @property
    def colour(self) -> str:
        if self.ours:
            return BLUE if self.contestant == OURS else PALE
        return GREY


def draw(document: Document, directory: Path) -> list[Path]:
    """Draw a picture of every question that has figures. Return the paths of the files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for question, picture in PICTURES.items():
        results = [each for each in document.results if each.question == question]
        shown = [panel for panel in picture.panels if any(_bar(panel, [each]) for each in results)]
        if shown:
            path = directory / f"{question}.svg"
            path.write_text(_svg(replace(picture, panels=shown), results))
            paths.append(path)
    return paths


# What is drawn -------------------------------------------------------------------------------


def _lines(picture: Picture, results: Sequence[Result]) -> Iterator[tuple[Panels, list[Row]]]:
    """Yield the panels that are side by side, with the rows that they share."""
    for first in range(0, len(picture.panels), picture.columns):
        panels = picture.panels[first : first + picture.columns]
        yield panels, list(_rows(panels, picture.by, results))


def _rows(panels: Panels, by: str | None, results: Sequence[Result]) -> Iterator[Row]:
    by_contestant: dict[str, list[Result]] = {}
    for result in results:
        by_contestant.setdefault(result.contestant, []).append(result)
    for contestant in _ordered(panels, by, by_contestant):
        own = by_contestant[contestant]
        if by is None:
            yield Row(contestant, contestant, _bars(panels, own))
            continue
        yield Row(contestant, contestant, ())
        for value in sorted({each.cell[by] for each in own}):
            part = [each for each in own if each.cell[by] == value]
            yield Row(f"{value:,}", contestant, _bars(panels, part))


def _ordered(
    panels: Panels, by: str | None, by_contestant: Mapping[str, Sequence[Result]]
) -> list[str]:
    """Return the contestants that have bars: the best in the first panel first, bounds last.

    With ``by``, they are in the order of CONTESTANTS.
    """
    sign = -1 if kind(panels[0].figure).more_is_better else 1
    places = {}
    for name in in_order(by_contestant):
        bars = _bars(panels, by_contestant[name])
        if any(bars):
            place = sign * bars[0].median if bars[0] else math.inf
            places[name] = (is_bound(name), place if by is None else 0)
    return sorted(places, key=places.__getitem__)


def _bars(panels: Panels, results: Sequence[Result]) -> list[Spread | None]:
    return [_bar(panel, results) for panel in panels]


def _bar(panel: Panel, results: Sequence[Result]) -> Spread | None:
    for result in results:
        if panel.cell.items() <= result.cell.items():
            return spread(result.rounds, panel.figure)
    return None


# How it is drawn -----------------------------------------------------------------------------


def _svg(picture: Picture, results: Sequence[Result]) -> str:
    lines = list(_lines(picture, results))
    every = [row for _, rows in lines for row in rows]
    names = max(_length(row.label, row.weight) for row in every) + 8
    everywhere = [bar for row in every for bar in row.bars]
    columns = min(picture.columns, len(picture.panels))
    wide = (WIDTH - 2 * MARGIN - names - GAP * (columns - 1)) / columns
    tall = [HEAD + _tops(rows)[-1] + ROW + GAP for _, rows in lines]
    height = TOP + sum(tall) + FOOT
    with mpl.rc_context(STYLE):
        card = _card(height)
        _write(card, MARGIN, 30, picture.title, size=15, weight="bold")
        _write(card, MARGIN, 51, picture.subtitle, color=MUTED)
        top: float = TOP + HEAD
        for (panels, rows), below in zip(lines, tall, strict=True):
            for row, place in zip(rows, _tops(rows), strict=True):
                middle = top + place + ROW / 2
                _write(card, MARGIN + names - 8, middle, row.label, weight=row.weight, ha="right")
            for column, panel in enumerate(panels):
                left = MARGIN + names + column * (wide + GAP)
                bars = [row.bars[column] if row.bars else None for row in rows]
                _write(card, left, top - HEAD / 2, panel.title, weight="bold")
                card.plot([left, left], [top, top + below - HEAD - GAP], color=LINE, linewidth=1)
                scale = _scale(everywhere if picture.common else bars, wide)
                for row, place, bar in zip(rows, _tops(rows), bars, strict=True):
                    if row.bars:
                        _draw_bar(card, left, top + place + ROW / 2, row, bar, scale)
            top += below
        _write(card, MARGIN, height - FOOT / 2 - 4, _legend(every, results), size=9.5, color=MUTED)
        return _serialised(card, picture.title)


def _tops(rows: Sequence[Row]) -> list[float]:
    """Return the distance of each row from the first. There are gaps between groups."""
    tops = [0.0]
    for above, row in pairwise(rows):
        apart = not row.bars or is_bound(row.contestant) != is_bound(above.contestant)
        tops.append(tops[-1] + ROW + (APART if apart else 0))
    return tops


def _legend(rows: Sequence[Row], results: Sequence[Result]) -> str:
    rounds = max(len(each.rounds) for each in results)
    words = ["One round."]
    if rounds > 1:
        words = [f"Medians of {rounds} rounds. The line spans the lowest and the highest."]
    if any(is_bound(row.contestant) for row in rows):
        words.append("Outlined: not a cache, only for comparison.")
    return " ".join(words)


def _scale(bars: Sequence[Spread | None], wide: float) -> float:
    """Return the pixels per unit that leave room for a value beside the longest bar."""
    rooms = [
        (wide - _length(written(bar.median), "bold") - 6) / bar.high
        for bar in bars
        if bar is not None and bar.high > 0
    ]
    return min(rooms, default=0.0)


def _draw_bar(
    card: Axes, left: float, middle: float, row: Row, bar: Spread | None, scale: float
) -> None:
    if bar is None:
        _write(card, left + 5, middle, "—", color=MUTED)
        return
    # A negative figure is a difference smaller than the noise. Its bar has no length.
    low, length, high = (max(0.0, each * scale) for each in (bar.low, bar.median, bar.high))
    inside, edge = ("none", MUTED) if is_bound(row.contestant) else (row.colour, "none")
    corner = (left, middle - BAR / 2)
    card.add_patch(Rectangle(corner, length, BAR, facecolor=inside, edgecolor=edge, linewidth=0.8))
    if high > low:
        line = ([left + low, left + high], [middle, middle])
        card.plot(*line, color=INK, linewidth=0.9, solid_capstyle="butt")
    weight = "bold" if row.colour == BLUE else "normal"
    _write(card, left + high + 5, middle, written(bar.median), weight=weight)


def _card(height: float) -> Axes:
    """Return axes in pixels from the top left corner, on a card with round corners."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    shape = "round,pad=0,rounding_size=8"
    axes.add_patch(
        FancyBboxPatch(
            (0.5, 0.5), WIDTH - 1, height - 1, boxstyle=shape, facecolor="white", edgecolor=LINE
        )
    )
    return axes


def _write(card: Axes, x: float, y: float, text: str, size: float = TEXT, **look: Any) -> None:
    card.text(x, y + 0.36 * size, text, **{"size": size, "va": "baseline", "color": INK, **look})


@cache
def _length(text: str, weight: str) -> float:
    font = FontProperties(family="DejaVu Sans", weight=weight)
    return float(TextPath((0, 0), text, size=TEXT, prop=font).get_extents().width)


def _serialised(card: Axes, title: str) -> str:
    """Return the SVG, which is the same for the same figures."""
    assert isinstance(card.figure, Figure)
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(card.figure).print_figure(
        file, format="svg", dpi=72, facecolor="none", metadata={**nothing, "Title": title}
    )
    text = file.getvalue().replace("'DejaVu Sans'", FONTS)
    return re.sub(r'(width|height)="(\d+)(\.\d+)?pt"', r'\1="\2"', text, count=2)
