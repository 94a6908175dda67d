"""The hits of one limit on the server: a counter for each key, rate and window of time."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import NamedTuple
from zlib import crc32

from ..client.counters import hits
from ..client.counters.hits import Window
from ..client.counters.stream import CounterStream
from ..client.protocol.steps import Steps, within
from ..exceptions import NatsError
from ..keys import token
from ..realtime import monotonic
from .algorithms import Usage
from .memory import Memory
from .rates import Rate


class RateOnStream(NamedTuple):
    """A rate, and the stream that counts its hits."""

    rate: Rate
    stream: CounterStream


class Counted(NamedTuple):
    """What was counted of one hit: where, what each rate had counted before it, and what failed."""

    windows: list[Window]
    usages: list[Usage]
    errors: list[NatsError]


class Tally:
    """Counts the hits of one limit, and reads what was counted.

    A key is given by its token, and the time in seconds since 1970, or as None for that of the
    server. All streams must be on one connection.
    """

    def __init__(self, name: str, *, slides: bool) -> None:
        """Count under a name. If windows slide, the hits of the window before are read as well."""
        self._head = token(name)
        self._slides = slides
        self._previous: Memory[int] = Memory()
        """The hits of windows that have ended, which hardly change, by their counters."""

    def add(
        self, key: str, places: Sequence[RateOnStream], cost: int, timeout: float, now: float | None
    ) -> Steps[Counted]:
        """Add a hit's cost to every rate, in one write. Wait for at most ``timeout`` seconds."""
        now = yield from _open(places, timeout, now)
        windows, elapsed = self._windows(key, places, now)
        known = [self._previous.find(each.previous or "") for each in windows]
        asked = [
            window if before is None else window._replace(previous=None)
            for window, before in zip(windows, known, strict=True)
        ]
        counts = yield from hits.hit(asked, cost, timeout)
        counted = Counted([], [], [])
        for place, window, passed, before, count in zip(
            places, windows, elapsed, known, counts, strict=True
        ):
            if isinstance(count, NatsError):
                counted.errors.append(count)
                continue
            current, previous = count
            if before is not None:
                previous = before
            elif window.previous is not None:
                self._previous.note(window.previous, previous)
            counted.windows.append(window)
            counted.usages.append(Usage(place.rate, current - cost, previous, passed, self._slides))
        return counted

    def read(
        self, key: str, places: Sequence[RateOnStream], timeout: float, now: float | None
    ) -> Steps[list[Usage]]:
        """Return what every rate has counted. Wait for at most ``timeout`` seconds."""
        now = yield from _open(places, timeout, now)
        windows, elapsed = self._windows(key, places, now)
        counts = yield from within(monotonic() + timeout, hits.peek(windows))
        return [
            Usage(place.rate, *count, passed, self._slides)
            for place, count, passed in zip(places, counts, elapsed, strict=True)
        ]

    def drop(self, key: str, places: Sequence[RateOnStream], now: float | None) -> Steps[None]:
        """Forget what was counted in the windows that matter now."""
        yield from hits.ready([each.stream for each in places])
        if now is None and places:
            now = places[0].stream.now()
        windows, _ = self._windows(key, places, now or 0.0)
        for stream, counter, previous in windows:
            if previous is not None:
                self._previous.forget(previous)
            yield from stream.purge([each for each in (counter, previous) if each is not None])

    def _windows(
        self, key: str, places: Sequence[RateOnStream], now: float
    ) -> tuple[list[Window], list[float]]:
        """Return the current window of each rate, and the seconds that have passed of it."""
        windows: list[Window] = []
        elapsed: list[float] = []
        for (_, seconds), stream in places:
            number, passed = window_at(key, seconds, now)
            head = f"{self._head}.{key}.{seconds}."
            previous = f"{head}{number - 1}" if self._slides else None
            windows.append(Window(stream, f"{head}{number}", previous))
            elapsed.append(passed)
        return windows, elapsed


def window_at(key: str, seconds: int, now: float) -> tuple[int, float]:
    """Return the number of a key's window at a time, and the seconds that have passed of it."""
    # Each key has its own beginning, so that the windows of many clients do not end at once.
    position = now / seconds + crc32(key.encode()) / 2**32
    number = floor(position)
    return number, (position - number) * seconds


def _open(places: Sequence[RateOnStream], timeout: float, now: float | None) -> Steps[float]:
    """Open the streams unless they are open, and return the time."""
    if not all(each.stream.stream.is_ready for each in places):
        opening = hits.ready([each.stream for each in places])
        yield from within(monotonic() + timeout, opening)
    return places[0].stream.now() if now is None else now
