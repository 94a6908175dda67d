"""The limits and quotas that the process has declared, for checks and commands."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from .limit import Limit

_limits: WeakSet[Limit] = WeakSet()


def declare(limit: Limit) -> None:
    """Note a limit, for as long as it exists."""
    _limits.add(limit)


def limits() -> list[Limit]:
    """Return the limits that exist, by name."""
    return sorted(_limits, key=lambda limit: limit.name)
