"""Closing a client of nats-py in a short time, whatever has happened to its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol


class Closable(Protocol):
    """A client that can be closed."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Close the connection. It may raise what a dead socket raises."""


async def close_within(seconds: float, client: Closable) -> None:
    """Close a client, but wait for a number of seconds at most. Raise none of its errors.

    It may even raise CancelledError though its caller was not cancelled: asyncio has one future for
    all that wait for a transport's end, and one of nats-py's tasks may have been cancelled in that
    wait.
    """
    closing = asyncio.ensure_future(client.close())
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait({closing}, timeout=seconds)
    finally:
        closing.cancel()  # does nothing if it is done
