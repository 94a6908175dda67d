"""The kinds of figures: their units, whether more is better, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A kind of figure: its label, its unit, and whether more is better."""

    label: str
    unit: str
    more_is_better: bool = False

    @property
    def title(self) -> str:
        return f"{self.label}, {self.unit}" if self.label and self.unit else self.label or self.unit


FIGURES = {
    "rate": Figure("", "a second", more_is_better=True),
    "p50_us": Figure("median", "µs"),
    "p99_us": Figure("99th percentile", "µs"),
    "client_us": Figure("client processor", "µs"),
    "server_us": Figure("server processor", "µs"),
    "ms": Figure("", "ms"),
    "first_ms": Figure("first key", "ms"),
    "concurrent_ms": Figure("slowest concurrent set", "ms"),
    "gone_percent": Figure("removed after 0.5 s", "%", more_is_better=True),
    "resident_bytes": Figure("resident memory", "bytes an entry"),
    "counted_percent": Figure("hits that count", "%", more_is_better=True),
    "kept": Figure("relative to before", "×", more_is_better=True),  # noqa: RUF001
    "reported_bytes": Figure("size reported by the server", "bytes an entry"),
    "peak_mb": Figure("peak memory", "MB"),
    "connections": Figure("connections", ""),
}


def kind(figure: str) -> Figure:
    """Return the kind of a figure, whose name may begin with an operation: ``get.p50_us``."""
    return FIGURES[figure.rpartition(".")[2]]


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest value of a figure over all rounds."""

    median: float
    low: float
    high: float


def spread(rounds: Sequence[Mapping[str, float]], figure: str) -> Spread | None:
    """Return the spread of a figure over the rounds that have it, or None if none has it."""
    values = [each[figure] for each in rounds if figure in each]
    return Spread(median(values), min(values), max(values)) if values else None


def written(value: float) -> str:
    """Return a figure with its significant digits: 0.48, 4.8, 48, 483, 48,300."""
    if value == 0:
        return "0"
    if abs(value) < 0.0995:
        return f"{value:.2g}"
    if abs(value) < 9.95:
        return f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}"
    digits = len(f"{abs(value):.0f}") - 3
    return f"{round(value, -digits) if digits > 0 else value:,.0f}"


def described(cell: Mapping[str, Any]) -> list[str]:
    """Return the parameters of a cell as texts, without the numbers that are 1."""
    words = []
    for name, value in cell.items():
        if name == "size":
            words.append(f"{value:,} B" if value < 1000 else f"{value / 1000:g} kB")
        elif isinstance(value, int):
            if value != 1:
                words.append(f"{value:,} {name}")
        else:
            words.append(str(value))
    return words or [f"{value} {name.removesuffix('es')}" for name, value in cell.items()]
