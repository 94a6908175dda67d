"""The limit of the API, and what one address has used of it."""

from __future__ import annotations

from django.http import HttpRequest

from django_nats.limits import aget_usage, ratelimit
from django_nats.limits.usage import RequestUsage
from testproject.magazine.totals import Totals

COUNT, SECONDS = 10, 30
GROUP, KEY, RATE = "api", "ip", f"{COUNT}/{SECONDS}s"

limited = ratelimit(group=GROUP, key=KEY, rate=RATE)
"""Limit a view of the API. All of them together answer an address at that rate."""


async def usage(request: HttpRequest) -> Totals:
    """Return what the address of a request has used of the API's limit. That is not counted."""
    used = await aget_usage(request, group=GROUP, key=KEY, rate=RATE)
    if used is None:
        return {"problem": "Meanwhile, the API answers every request."}
    return {"used": str(used["count"]), "state": _state(used), "problem": ""}


def _state(used: RequestUsage) -> str:
    if not used["time_left"]:
        return "Empty"
    what = "Room for one more" if used["should_limit"] else "Empty again"
    return f"{what} in {used['time_left']} s"
