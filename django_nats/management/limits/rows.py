"""The hits of one key by one rate, as ``top`` and ``show`` show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

from ...keys import token
from ...limits.algorithms import SLIDING, Usage
from ...limits.keys import text_of
from ...limits.limit import Limit
from ...limits.rates import Rate
from ...limits.stored import Hits
from ...printable import duration, printable

_HEADINGS = ("limit", "key", "rate", "used", "remaining", "reset in")
_NUMBERS = 3
"""The last columns, which hold numbers."""
_ROUNDING = 1e-9


class Row(NamedTuple):
    """What a rate has counted for a key."""

    limit: str
    """The limit's name."""
    key: str
    """The token of the key."""
    usage: Usage
    is_known: bool
    """Whether a declared limit has this rate. Otherwise its count is not known, and given as 0."""

    @property
    def used(self) -> int:
        """Return how many hits count now, rounded up."""
        return ceil(self.usage.used - _ROUNDING)

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row's texts in a table."""
        rate, remaining = str(self.usage.rate), f"{self.usage.remaining:,}"
        if not self.is_known:
            rate, remaining = rate.replace("0", "?", 1), "?"
        key = printable(text_of(self.key)) or '""'
        reset = duration(ceil(self.usage.reset_after))
        return printable(self.limit), key, rate, f"{self.used:,}", remaining, reset


def rows(hits: Iterable[Hits], limits: Sequence[Limit]) -> Iterator[Row]:
    """Yield a row for each key and rate.

    ``limits`` are those that are declared for the stream. Hits of windows that none of a declared
    limit's rates has are left out: they were counted before the rates were changed.
    """
    by_token: dict[str, list[Limit]] = {}
    for limit in limits:
        by_token.setdefault(token(limit.name), []).append(limit)
    for each in hits:
        for (rate, slides), is_known in _rates(each.seconds, by_token.get(each.limit)).items():
            previous = each.previous if slides else 0
            usage = Usage(rate, each.current, previous, each.elapsed, slides)
            yield Row(text_of(each.limit), each.key, usage, is_known)


def _rates(seconds: int, limits: Sequence[Limit] | None) -> dict[tuple[Rate, bool], bool]:
    """Return the rates with windows of that length, and whether these slide.

    The value says whether the rate is known. It is not if it comes from a function, or if no limit
    of the name is declared.
    """
    unknown = Rate(0, seconds)
    if limits is None:
        return {(unknown, True): False}
    known = {
        (rate, limit.algorithm == SLIDING): True
        for limit in limits
        for rate in limit.rates
        if isinstance(rate, Rate) and rate.seconds == seconds
    }
    return known or {
        (unknown, limit.algorithm == SLIDING): False
        for limit in limits
        if any(map(callable, limit.rates))
    }


def table(found: Sequence[Row]) -> list[str]:
    """Return lines with headings."""
    lines = [_HEADINGS, *(each.cells for each in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    signs = ["<"] * (len(_HEADINGS) - _NUMBERS) + [">"] * _NUMBERS
    return [
        "  ".join(
            f"{cell:{sign}{width}}" for cell, sign, width in zip(line, signs, widths, strict=True)
        )
        for line in lines
    ]
