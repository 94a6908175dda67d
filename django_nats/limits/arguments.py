"""Checks of arguments that limits and decorators have in common."""

from __future__ import annotations

from math import inf


def is_seconds(value: object) -> bool:
    """Return True for a number of seconds above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < inf


def require_choice(value: object, option: str, where: str) -> None:
    """Raise TypeError unless a value is True, False or None for the default.

    ``option`` and ``where`` are what the error message names.
    """
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{where}: {option} must be True or False, not {value!r}")
