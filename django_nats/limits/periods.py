"""Calendar periods of a time zone: hours, days, weeks, months and years.

The periods of one kind follow each other without a gap. A day begins at the first moment of its
date, which is not midnight where clocks are put forward at midnight. Where clocks are put back over
midnight, a date begins twice, and its day begins at the first time. Days, and all that is made of
them, are as long as the calendar says: a day on which clocks change has 23 or 25 hours. An hour is
never longer than 60 minutes: a change of the clock ends it. So the hour that clocks repeat is two
hours, and where clocks change by half an hour, one of 30 minutes appears.

Times are whole seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from math import floor
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1)
_DAY = timedelta(days=1)


class Period(NamedTuple):
    """One period. Its id has letters, digits and hyphens, and differs from that of all others."""

    id: str
    start: int
    end: int
    """The first second that belongs to the next period."""


class _Calendar(NamedTuple):
    """A kind of period that consists of days."""

    longest: int
    """The days of the longest one."""
    first: Callable[[date], date]
    """Returns the first date of the period with a date."""
    id: Callable[[date], str]
    """Returns the id of the period with a first date."""


_CALENDARS = {
    "day": _Calendar(1, lambda day: day, date.isoformat),
    "week": _Calendar(
        7,
        lambda day: day - day.weekday() * _DAY,
        lambda day: "{}-W{:02}".format(*day.isocalendar()[:2]),
    ),
    "month": _Calendar(31, lambda day: day.replace(day=1), lambda day: day.isoformat()[:7]),
    "year": _Calendar(
        366, lambda day: day.replace(month=1, day=1), lambda day: day.isoformat()[:4]
    ),
}
_HOUR_S, _DAY_S = 3600, 86_400

SECONDS = {"hour": _HOUR_S, **{per: each.longest * _DAY_S for per, each in _CALENDARS.items()}}
"""The kinds of periods, with the seconds of the longest of each, changes of the clock left out."""


def period_at(seconds: float, per: str, tz: tzinfo) -> Period:
    """Return the period of a kind of SECONDS that contains a moment.

    ``seconds`` are those since 1970. ``tz`` is a time zone in the way of zoneinfo.
    """
    second = floor(seconds)
    if per == "hour":
        return _hour(second, tz)
    calendar = _CALENDARS[per]
    first = calendar.first(_local(second, tz).date())
    while True:
        after = calendar.first(first + calendar.longest * _DAY)
        if second < (end := _beginning(after, tz)):
            return Period(calendar.id(first), _beginning(first, tz), end)
        first = after  # clocks were put back over midnight, into a date that had ended


def _hour(second: int, tz: tzinfo) -> Period:
    offset = _offset(second, tz)
    local = _local(second, tz).replace(minute=0, second=0)
    start = _seconds(local - offset)
    end = start + _HOUR_S
    if _offset(start, tz) != offset:
        start = _first(lambda each: _offset(each, tz) == offset, start, second)
    if _offset(end - 1, tz) != offset:
        end = _first(lambda each: _offset(each, tz) != offset, second, end - 1)
    # In UTC, in which no hour is repeated.
    id = datetime.fromtimestamp(start, timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    return Period(id, start, end)


def _beginning(day: date, tz: tzinfo) -> int:
    """Return the first second of a date."""
    midnight = datetime.combine(day, time())
    # By the offset before a change of the clock, and by that after it.
    readings = (midnight.replace(tzinfo=tz, fold=fold) for fold in (0, 1))
    low, high = sorted(_seconds(midnight - (each.utcoffset() or timedelta())) for each in readings)
    if _local(low, tz) >= midnight:
        return low
    return _first(lambda second: _local(second, tz) >= midnight, low, high)  # there is no midnight


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first second at which something holds, as it does from then until ``high``.

    It does not hold at ``low``.
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _local(second: int, tz: tzinfo) -> datetime:
    """Return what clocks show, without the time zone."""
    return datetime.fromtimestamp(second, tz).replace(tzinfo=None, fold=0)


def _offset(second: int, tz: tzinfo) -> timedelta:
    return datetime.fromtimestamp(second, tz).utcoffset() or timedelta()


def _seconds(utc: datetime) -> int:
    return (utc - _EPOCH) // timedelta(seconds=1)
