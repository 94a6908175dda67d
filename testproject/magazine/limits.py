"""The limit of the API, as the page of limits shows it."""

from __future__ import annotations

from math import ceil

from django_nats.limits.decision import Decision
from django_nats.limits.limit import Limit
from testproject.magazine.totals import Totals

API_COUNT, API_SECONDS = 10, 30
SEARCH_COST = 4

API = Limit("api", (API_COUNT, API_SECONDS))
"""Each address has its own. A search costs as much as several lists."""


async def of_api(address: str) -> Totals:
    """Return what an address has used of the API's limit. Looking at it costs nothing."""
    decision = await API.apeek(address)
    return {"problem": str(decision.error)} if decision.error else _as_text(decision)


def _as_text(decision: Decision) -> Totals:
    return {
        "api_used": str(API_COUNT - (decision.remaining or 0)),
        "api_next": _in(decision.retry_after),
        "api_empty": _in(decision.reset_after),
        "problem": "",
    }


def _in(seconds: float) -> str:
    return f"in {ceil(seconds)} s" if seconds else "now"
