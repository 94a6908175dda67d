"""How many are let through in how long: the rates that users write."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple, NoReturn

LONGEST_S = 366 * 86_400
"""The longest window, in seconds: a leap year."""
MOST = 10**15 - 1
"""The largest count: the largest integer that the headers of a response may hold."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}
_RATE = re.compile(r"([0-9]{1,20})/(?=.)([0-9]{0,20})([smhd]?)")
_RIGHT = (
    'Write a count and a time, such as "5/s", "100/m", "100/15m", "2000/h" or "5000/d", or a tuple '
    "such as (100, 60), whose second item is a number of seconds or a timedelta"
)


class Rate(NamedTuple):
    """At most ``count`` within ``seconds``. A count of 0 lets nothing through."""

    count: int  # type: ignore[assignment]  # not the method of tuples
    seconds: int

    def __str__(self) -> str:
        """Return the rate as users write it.

        >>> str(Rate(100, 900)), str(Rate(5, 1)), str(Rate(10, 90))
        ('100/15m', '5/s', '10/90s')
        """
        unit = next(unit for unit in "dhms" if self.seconds % _UNITS[unit] == 0)
        multiple = self.seconds // _UNITS[unit]
        return f"{self.count}/{'' if multiple == 1 else multiple}{unit}"


def parse_rate(value: object, where: str) -> Rate | None:
    """Return a rate that a user wrote, or None if there is no limit.

    ``value`` is text such as "100/15m", a tuple of a count and a number of seconds or a timedelta,
    or None. ``where`` is the place that an error message names, such as ``Limit("api")``.

    Raises ValueError for a value that is not a rate, and TypeError for a value of another type.
    """
    if value is None:
        return None
    if isinstance(value, str):
        found = _RATE.fullmatch(value)
        if found is None:
            _refuse(value, where, "is not a rate")
        count, seconds = int(found[1]), int(found[2] or 1) * _UNITS[found[3]]
    elif isinstance(value, tuple) and len(value) == 2:
        count, seconds = value[0], _whole_seconds(value, where)
        if type(count) is not int:
            raise TypeError(
                f"{where}: the rate {value!r} has a count that is not an int. {_RIGHT}."
            )
    else:
        several = "Pass several rates as arguments of their own. " if type(value) is list else ""
        raise TypeError(
            f"{where}: a rate cannot be {type(value).__name__}: {value!r}. {several}{_RIGHT}."
        )
    if not 0 <= count <= MOST:
        _refuse(value, where, f"has a count that is not between 0 and {MOST:,}")
    if not 0 < seconds <= LONGEST_S:
        _refuse(value, where, "has a time that is not between 1 second and 366 days")
    return Rate(count, seconds)


def _whole_seconds(value: tuple[object, ...], where: str) -> int:
    seconds = value[1]
    if isinstance(seconds, timedelta):
        if seconds.microseconds:
            _refuse(value, where, "has a time that is not a whole number of seconds")
        return seconds.days * 86_400 + seconds.seconds
    if type(seconds) is not int:
        raise TypeError(
            f"{where}: the rate {value!r} has a time that is neither an int nor a timedelta. "
            f"{_RIGHT}."
        )
    return seconds


def _refuse(value: object, where: str, problem: str) -> NoReturn:
    raise ValueError(f"{where}: the rate {value!r} {problem}. {_RIGHT}.")
