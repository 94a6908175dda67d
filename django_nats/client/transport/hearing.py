"""Whether answers still arrive on a connection.

Pings do not show that: the server answers pings even after it has dropped the subscription on
which answers come in (the inbox). Only a message on that subscription shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from ...realtime import monotonic
from .pending import Outstanding

_PATIENCE_S = 3.0
"""How long no message may come in on the inbox, while pings are answered."""
_PATIENCE_UNASKED_S = 15.0
"""The same if this user may not publish to the inbox.

It is longer than a stream may be without a leader, as answers are then missing for that reason.
"""


class Deaf(ConnectionError):
    """Answers no longer arrive, though the server answers pings: it has dropped the inbox."""

    def __init__(self) -> None:
        """Make the error with its message."""
        super().__init__(type(self).__doc__)


class InboxConnection(Protocol):
    """What is needed of the connection."""

    outstanding: Outstanding
    lost: asyncio.Future[Exception]

    def lose(self, error: Exception) -> None:
        """Close the connection for an error."""

    def ping(self) -> Coroutine[Any, Any, None]:
        """Wait until all that the server had sent before this call has been read."""

    def send_to_inbox(self) -> None:
        """Publish an empty message to the connection's own inbox."""


class Hearing:
    """Closes the connection if its inbox receives nothing any more. Runs on the loop's thread.

    When in doubt, it publishes to the inbox itself. It does nothing while no request is waiting,
    or while answers come in.
    """

    def __init__(self, link: InboxConnection) -> None:
        """Make it for a connection whose inbox is not in doubt."""
        self._link = link
        self._proof: asyncio.Task[None] | None = None
        self._doubted_at = 0.0
        self.permitted = True
        """Whether this user may publish to the inbox. False once the server has refused it."""

    def doubt(self) -> None:
        """Start to test the inbox, unless a test is running.

        It is called again and again while a request is waiting without an answer.
        """
        self._doubted_at = monotonic()
        if self._proof is None or self._proof.done():
            self._proof = asyncio.get_running_loop().create_task(self._prove())

    def stop(self) -> None:
        """End a test that is running."""
        if self._proof is not None:
            self._proof.cancel()

    async def _prove(self) -> None:
        link, asked = self._link, monotonic()
        while True:
            if self.permitted:
                link.send_to_inbox()
            pinged = monotonic()
            # Once the ping is answered, all that the server had sent before has been read. A loop
            # that was held up, or a server that was stopped, is not mistaken for a dropped inbox.
            await link.ping()
            if link.lost.done() or link.outstanding.answered_at >= asked:
                return
            patience = _PATIENCE_S if self.permitted else _PATIENCE_UNASKED_S
            if pinged - asked >= patience:
                link.lose(Deaf())
                return
            slept = monotonic()
            await asyncio.sleep(patience / 4)
            if not self.permitted and self._doubted_at < slept:
                return  # no request was waiting during the pause, so no answer was due
