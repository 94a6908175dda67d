"""The limit of the API, and what one address has used of it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from django_nats.limits import aget_usage, get_usage, ratelimit
from django_nats.limits.usage import RequestUsage
from testproject.magazine.totals import Totals

COUNT, SECONDS = 10, 30
ARGUMENTS: dict[str, Any] = {"group": "api", "key": "ip", "rate": f"{COUNT}/{SECONDS}s"}

limited = ratelimit(**ARGUMENTS)
"""Limit a view of the API. All of them together answer an address at that rate."""


def usage(request: HttpRequest) -> Totals:
    """Return what the address of a request has used of the API's limit. That is not counted."""
    return _totals(get_usage(request, **ARGUMENTS))


async def ausage(request: HttpRequest) -> Totals:
    """Async version of usage()."""
    return _totals(await aget_usage(request, **ARGUMENTS))


def _totals(usage: RequestUsage | None) -> Totals:
    if usage is None:
        return {"problem": "Meanwhile, the API answers every request."}
    return {"used": str(usage["count"]), "state": _state(usage), "problem": ""}


def _state(usage: RequestUsage) -> str:
    if not usage["time_left"]:
        return "Empty"
    what = "Next request allowed" if usage["should_limit"] else "Empty again"
    return f"{what} in {usage['time_left']} s"
