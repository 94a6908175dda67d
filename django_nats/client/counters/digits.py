"""Integers of many digits as decimal text, beyond the limit that Python sets for it.

Counters have no size of their own. This package reads and adds up to 10,000 digits, whatever
sys.set_int_max_str_digits allows: converting them takes milliseconds.
"""

from __future__ import annotations

from decimal import Decimal

MAX_DIGITS = 10_000
_FIRST_TOO_LARGE = 10**MAX_DIGITS
_FIRST_TOO_SMALL = -_FIRST_TOO_LARGE


def integer_of(digits: bytes) -> int:
    """Return the integer that decimal digits stand for.

    Raises ValueError for other text, and for more than MAX_DIGITS digits.
    """
    if not digits.removeprefix(b"-").isdigit():
        raise ValueError(f"{digits[:40]!r} is not an integer")
    if len(digits) - digits.startswith(b"-") > MAX_DIGITS:
        raise ValueError(f"{len(digits)} bytes are too many: at most {MAX_DIGITS} digits are read")
    try:
        return int(digits)
    except ValueError:  # more digits than Python's own limit
        return int(Decimal(digits.decode("ascii")))


def is_too_large(integer: int) -> bool:
    """Return True if an integer has more than MAX_DIGITS digits."""
    return not _FIRST_TOO_SMALL < integer < _FIRST_TOO_LARGE


def text_of(integer: int, spec: str = "") -> str:
    """Return an integer as text. ``spec`` is "", "," for groups of three, or "+" for a sign."""
    try:
        return format(integer, spec)
    except ValueError:
        return format(Decimal(integer), f"{spec}f")
