"""Failing what has waited too long for an answer, and asking early whether the server is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Protocol

from ..exceptions import OutcomeUnknown
from .outstanding import Outstanding
from .steps import Lane
from .waiter import Waiter

_TICK = 0.02
LATE = 0.2
"""Seconds by which a sweep that is late shows that the loop itself was held up."""


class Link(Protocol):
    """What a sweep needs of its connection."""

    outstanding: Outstanding
    flowed: float

    def gone(self) -> int:
        """How many of the bytes that were written have left."""

    def flush(self, timeout: int = 10) -> Coroutine[Any, Any, None]: ...


class Sweep:
    """Goes through those who wait, every few milliseconds while there are any; on the loop."""

    def __init__(self, link: Link, on_timeout: Callable[[Lane], str | None]) -> None:
        self._link = link
        self._on_timeout = on_timeout
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._ping: asyncio.Task[None] | None = None
        self.armed = False

    def begin(self) -> None:
        """See to it that who waits is told in time."""
        if not self.armed:
            self._arm()

    def stop(self) -> None:
        """Ask for no sign of life any more."""
        if self._ping is not None:
            self._ping.cancel()

    def run(self, patient: bool = True) -> None:
        now = monotonic()
        if patient and now - self._due > LATE:
            # The loop itself was held up: the answers may be in the socket, still unread. Only
            # once, though: on a machine that always holds it up, calls must end all the same.
            self._arm(patient=False)
            return
        link = self._link
        gone = link.gone()
        try:
            for waiter in link.outstanding.waiters():
                if waiter.end > gone:
                    # Behind others' bytes on a slow link: the server cannot have been asked yet.
                    waiter.deadline = max(waiter.deadline, link.flowed + waiter.timeout)
                if now >= waiter.deadline:
                    self._time_out(waiter)
                elif now - max(waiter.sent, link.outstanding.heard) > waiter.timeout / 4:
                    self.ask_for_sign_of_life()
        finally:
            self._arm()

    def _arm(self, patient: bool = True) -> None:
        self.armed = bool(self._link.outstanding)
        if self.armed:
            self._due = monotonic() + _TICK
            self._loop.call_later(_TICK, self.run, patient)

    def _time_out(self, waiter: Waiter) -> None:
        outstanding = self._link.outstanding
        with outstanding.lock:
            if not waiter.left:
                return  # answered meanwhile, by a caller that reads
            lane = waiter.first_open.lane
            outstanding.forget(waiter)
        self.ask_for_sign_of_life()
        # First the circuit, then the caller: its next request must find the circuit open. The
        # caller logs it: a handler of the log might use the cache, and wait for this thread.
        waiter.news = self._on_timeout(lane)
        waiter.fail(OutcomeUnknown(f"No answer within {waiter.timeout:g} s ({lane.name})"))

    def ask_for_sign_of_life(self) -> None:
        if self._ping is None or self._ping.done():
            self._ping = self._loop.create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        with contextlib.suppress(Exception):
            await self._link.flush(timeout=60)
