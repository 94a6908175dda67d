"""The circuits of single lanes, which open while the connection itself is well.

One stream may not answer, for example while it has no leader, though the server does. Requests of
its lane then fail at once, and a probe is repeated in the background until it is answered.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from ..protocol import wire
from ..protocol.steps import Answer, Lane, Request
from .waiter import Waiter

logger = logging.getLogger("django_nats")

_PROBE_PAUSE_S = 0.1


class ProbingSession(Protocol):
    """What is needed of the session."""

    @property
    def connection(self) -> object | None:
        """Return the current connection."""

    def submit_probe(self, waiter: Waiter) -> None:
        """Send a request even if the circuit of its lane is open, on the loop's thread."""


class LaneCircuits:
    """The open circuits of one session's lanes. Whether one is open is in ``Lane.fault``."""

    def __init__(self, session: ProbingSession) -> None:
        """Make it with all circuits closed."""
        self._session = session
        self._probes: dict[Lane, asyncio.Task[None]] = {}
        self._opened: set[Lane] = set()
        """Lanes whose circuits have been opened. The loop may not have begun to probe them."""

    def reset(self) -> None:
        """Close all circuits, when the loop that would probe the lanes has ended."""
        for lane in tuple(self._opened):
            lane.fault = None
        self._probes = {}
        self._opened.clear()

    def open(self, lane: Lane, fault: str) -> None:
        """Open a circuit. Any thread may call this, and probe() must follow."""
        self._opened.add(lane)  # first, so that a fork between the two leaves no open circuit
        lane.fault = fault

    def probe(self, lane: Lane) -> None:
        """Repeat the lane's probe until it is answered, and close the circuit. On the loop."""
        if lane not in self._probes:
            self._probes[lane] = asyncio.get_running_loop().create_task(self._probe(lane))

    async def _probe(self, lane: Lane) -> None:
        session = self._session
        connection = session.connection
        try:
            while (probe := lane.probe) is not None and connection is session.connection:
                # The pause comes first. If one of several replicas is mute, the next request may
                # reach another, and callers must not wait for the mute one again and again.
                await asyncio.sleep(_PROBE_PAUSE_S)
                answer = await self._ask(probe)
                if isinstance(answer, wire.Reply) and wire.answers_for_stream(answer):
                    logger.warning("%s answers again", lane.name)
                    return
        finally:
            lane.fault = None
            self._probes.pop(lane, None)

    async def _ask(self, probe: Request) -> Answer | None:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            # On the thread that reads the answer, which may be a caller's.
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(answered.set)

        waiter = Waiter([probe], wake)
        self._session.submit_probe(waiter)
        await answered.wait()
        return waiter.answers[0]
