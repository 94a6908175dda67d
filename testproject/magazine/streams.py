"""Server-sent events: totals, as often as they change."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

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


def stream(request: HttpRequest, totals: AsyncGenerator[Totals, None]) -> HttpResponseBase:
    """Send totals, at once and whenever they have changed, until the browser leaves.

    They have to come at least once a tick, changed or not: what comes is when a stream can end.
    """
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Totals move under ASGI only: python -m testproject", status=501)
    return StreamingHttpResponse(
        _events(totals),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def ticking(read: Callable[[], Awaitable[Totals]]) -> AsyncGenerator[Totals, None]:
    """What ``read`` returns, once a tick: each open page asks for itself, for all that it shows."""
    while True:
        yield await read()
        await asyncio.sleep(TICK)


async def _events(totals: AsyncGenerator[Totals, None]) -> AsyncIterator[str]:
    sent = None
    end = time.monotonic() + LONGEST
    async with aclosing(totals):
        async for each in totals:
            if _closing or time.monotonic() > end:
                return
            if each != sent:
                yield f"data: {json.dumps(each)}\n\n"
                sent = each
