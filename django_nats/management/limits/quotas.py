"""What ``show`` says of a quota, and of what a tenant has used; and its reset."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ...checks.streams import of_limits
from ...client import drivers
from ...limits.quota import Quota
from .limits import by


def facts(quota: Quota) -> Iterator[tuple[str, str]]:
    """Yield names and texts that say what a quota is."""
    limit = by(quota.limit) if callable(quota.limit) else str(quota.limit)
    yield "limit", f"{limit} per {quota.per}"
    yield "time zone", str(quota.tz)
    yield "alias", quota.alias
    for each in of_limits([quota]):
        yield "stream", each.stream.config.stream


def lines(quota: Quota, tenant: str) -> Iterator[str]:
    """Yield what a tenant has used, and what is left if the limit is no function."""
    used, until = _used(quota, tenant)
    text = f"{used:,} used"
    if isinstance(quota.limit, int):
        text += f", {max(0, quota.limit - used):,} left"
    yield text if until is None else f"{text}, until {until.isoformat(' ', 'minutes')}"


def reset(quota: Quota, tenant: str) -> bool:
    """Let a tenant begin the period again. Return False if it has used nothing."""
    used, _ = _used(quota, tenant)
    if used:
        quota.reset(tenant)
    return used > 0


def _used(quota: Quota, tenant: str) -> tuple[int, datetime | None]:
    """Return what is used, and when the period ends: None if the stream does not exist.

    To ask the quota itself would create the stream.
    """
    (place,) = of_limits([quota])
    if drivers.run(place.session, place.stream.opening.info()) is None:
        return 0, None
    return drivers.run(quota.session, quota._used(quota._key(tenant)))
