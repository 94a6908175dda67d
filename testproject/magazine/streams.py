"""Server-sent events: totals, as often as they change."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from testproject.magazine.totals import Totals

TICK = 0.5  # seconds
LONGEST = 600  # seconds; a browser then comes back by itself, and who has vanished does not

_closing = False


def close() -> None:
    """Let all streams end within a tick, so that the site can."""
    global _closing
    _closing = True


def stream(request: HttpRequest, read: Callable[[], Awaitable[Totals]]) -> HttpResponseBase:
    """Send what ``read`` returns, at once and whenever it has changed, until the browser leaves.

    Each open page asks for itself: once a tick, for all that it shows.
    """
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Totals move under ASGI only: python -m testproject", status=501)
    return StreamingHttpResponse(
        _events(read),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def _events(read: Callable[[], Awaitable[Totals]]) -> AsyncIterator[str]:
    sent = None
    end = time.monotonic() + LONGEST
    while not _closing and time.monotonic() < end:
        totals = await read()
        if totals != sent:
            yield f"data: {json.dumps(totals)}\n\n"
            sent = totals
        await asyncio.sleep(TICK)
