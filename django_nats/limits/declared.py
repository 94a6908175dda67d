"""The limits and quotas that the process has declared, for checks and commands."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from .limit import Limit
    from .quota import Quota

_limits: WeakSet[Limit] = WeakSet()
_quotas: WeakSet[Quota] = WeakSet()


def declare(limit: Limit) -> None:
    """Note a limit, for as long as it exists."""
    _limits.add(limit)


def declare_quota(quota: Quota) -> None:
    """Note a quota, for as long as it exists."""
    _quotas.add(quota)


def limits() -> list[Limit]:
    """Return the limits that exist, by name."""
    return sorted(_limits, key=lambda limit: limit.name)


def quotas() -> list[Quota]:
    """Return the quotas that exist, by name."""
    return sorted(_quotas, key=lambda quota: quota.name)
