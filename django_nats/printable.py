"""Text for people: of other programs, of numbers and of durations. Pure functions."""

from __future__ import annotations

import re

_UNUSUAL = re.compile(r"[^ -~]")


def printable(text: str) -> str:
    r"""Return a text in which characters that are not printable are escaped as in ``repr``.

    Control characters could move the cursor of a terminal, change its colours or ring its bell.
    Those for the direction of writing could make the text look like another text.

    >>> printable("\x1b[31m red \u202e")
    '\\x1b[31m red \\u202e'
    """
    return _UNUSUAL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, with each line escaped by ``printable``."""
    return "\n".join(map(printable, text.split("\n")))


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with the noun that it counts, in singular or plural.

    >>> counted(1, "counter"), counted(1200, "counter"), counted(0, "entry", "entries")
    ('1 counter', '1,200 counters', '0 entries')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """Return a duration in the units that people use, without rounding whole seconds.

    >>> duration(7_776_000), duration(5400), duration(90), duration(0.25)
    ('90 days', '1 h 30 min', '1 min 30 s', '0.25 s')
    """
    if seconds >= 1:
        seconds = round(seconds, 3)
    whole, fraction = divmod(seconds, 1)
    minutes, rest = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [counted(days, "day")] if days else []
    parts += [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min")) if value]
    if rest or fraction or not parts:
        parts.append(f"{rest + fraction:.6g} s")
    return " ".join(parts)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
