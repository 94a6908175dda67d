"""Timeouts of the requests on one connection, and an early check that the server answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ...exceptions import OutcomeUnknown
from ...realtime import monotonic
from ..protocol.steps import Lane
from .hearing import Hearing
from .outgoing import Outgoing
from .pending import Outstanding
from .waiter import Waiter

_TICK_S = 0.02
"""How often the waiting requests are looked through."""
_DOUBT_S = 1.0
"""Without any answer for so long, or for half a request's timeout, the inbox is tested."""
LATE_S = 0.2
"""A sweep that starts so late shows that the loop itself was held up."""


class SweptConnection(Protocol):
    """What a sweep needs of its connection."""

    outstanding: Outstanding
    outgoing: Outgoing
    hearing: Hearing

    def flush(self, timeout: int = 10) -> Coroutine[Any, Any, None]:
        """Send a ping, and wait for the answer for a number of seconds."""


class Sweep:
    """Looks through the waiting requests every few milliseconds, while there are any.

    It runs on the loop's thread.
    """

    def __init__(self, link: SweptConnection, on_timeout: Callable[[Lane], str | None]) -> None:
        """Make a sweep. ``on_timeout`` gets a lane, and returns what should be logged."""
        self._link = link
        self._on_timeout = on_timeout
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self.armed = False
        """Whether the next run is scheduled."""

    def begin(self) -> None:
        """Schedule the first run, if requests are waiting and none is scheduled."""
        if not self.armed:
            self._arm()

    def stop(self) -> None:
        """Run no more, and cancel the checks that are running."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()
        self._link.hearing.stop()

    def run(self, patient: bool = True) -> None:
        """Fail the requests that have timed out, and check the server if others are late.

        With ``patient``, do nothing if this run is late itself, but run again soon.
        """
        now = monotonic()
        if patient and now - self._due > LATE_S:
            # The loop was held up, and the answers may be in the socket, unread. This is done
            # only once in a row: if every run is late, requests must time out all the same.
            self._arm(patient=False)
            return
        link = self._link
        sent_bytes = link.outgoing.sent_bytes()
        try:
            for waiter in link.outstanding.waiters():
                if waiter.end_offset > sent_bytes:
                    # The request is queued behind other bytes on a slow connection: the server
                    # does not have it yet. Its timeout runs while no bytes leave.
                    waiter.deadline = max(waiter.deadline, link.outgoing.flowed_at + waiter.timeout)
                if now >= waiter.deadline:
                    self._time_out(waiter)
                    continue
                if now - max(waiter.sent, link.outstanding.received_at) > waiter.timeout / 4:
                    self.ask_for_sign_of_life()
                doubtful = min(waiter.timeout / 2, _DOUBT_S)
                if now - max(waiter.sent, link.outstanding.answered_at) > doubtful:
                    link.hearing.doubt()
        finally:
            self._arm()

    def _arm(self, patient: bool = True) -> None:
        # False before it looks, and true after that: of a request that another thread sends
        # meanwhile, either this sees the request, or that thread sees that it has to begin.
        self.armed = False
        if self._link.outstanding:
            self.armed = True
            self._due = monotonic() + _TICK_S
            self._timer = self._loop.call_later(_TICK_S, self.run, patient)

    def _time_out(self, waiter: Waiter) -> None:
        outstanding = self._link.outstanding
        with outstanding.lock:
            if not waiter.unanswered:
                return  # a caller that reads has received the answer meanwhile
            lane = waiter.first_open.lane
            outstanding.forget(waiter)
        self.ask_for_sign_of_life()
        # First the circuit, then the caller: the caller's next request must find it open. The
        # caller logs the warning, since a log handler might use the cache and wait for this
        # thread.
        waiter.warning = self._on_timeout(lane)
        waiter.fail(OutcomeUnknown(f"No answer within {waiter.timeout:g} s ({lane.name})"))

    def ask_for_sign_of_life(self) -> None:
        """Send a ping, unless one is unanswered."""
        if self._ping is None or self._ping.done():
            self._ping = self._loop.create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(Exception):
            await self._link.flush(timeout=60)
