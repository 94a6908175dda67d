"""Server-sent events: totals, whenever they have changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from testproject.magazine.totals import Totals

TICK_S = 0.5
LONGEST_S = 600
"""The seconds after which a stream ends. A browser that still shows the page reconnects."""

_closing = False


def close() -> None:
    """Let all streams end within a tick, since the server waits for them before it exits."""
    global _closing
    _closing = True


def stream(request: HttpRequest, totals: AsyncGenerator[Totals, None]) -> HttpResponseBase:
    """Return a response that sends totals at once, and again whenever they have changed.

    ``totals`` must yield at least once a tick, even if nothing has changed: the stream can only end
    then. Without ASGI, the response has the status 501.
    """
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Live totals need ASGI. Run: python -m testproject", status=501)
    return StreamingHttpResponse(
        _events(totals),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def ticking(read: Callable[[], Awaitable[Totals]]) -> AsyncGenerator[Totals, None]:
    """Yield the result of ``read`` once a tick."""
    while True:
        yield await read()
        await asyncio.sleep(TICK_S)


async def _events(totals: AsyncGenerator[Totals, None]) -> AsyncIterator[str]:
    sent = None
    end = time.monotonic() + LONGEST_S
    async with aclosing(totals):
        async for each in totals:
            if _closing or time.monotonic() > end:
                return
            if each != sent:
                yield f"data: {json.dumps(each)}\n\n"
                sent = each
