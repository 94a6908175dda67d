"""The server's timestamps, which are RFC 3339 text in UTC."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

from ...exceptions import UnexpectedReply

_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 2261
"""The server stores times as nanoseconds since 1970 in 64 bits, which end in 2262."""


def epoch(stamp: bytes) -> float:
    """Return the seconds since 1970 of a timestamp, exact to the microsecond.

    Raise UnexpectedReply if the text is not a timestamp, or is not in the years 1970 to 2261.
    """
    try:
        seconds = float(stamp[17:-1])
        if 0.0 <= seconds < 61.0 and stamp[-1] == 90:  # ord("Z")
            return _minute(stamp[:17]) + seconds
    except ValueError:
        pass
    raise UnexpectedReply(f"The server sent something that is not a time: {stamp[:40]!r}")


@lru_cache(maxsize=4096)
def _minute(stamp: bytes) -> float:
    text = stamp.decode("ascii")
    if not _MINUTE.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text + "00+00:00")
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(text)
    return moment.timestamp()
