"""A race of attempts to connect, each of which begins a moment after the one before.

So an address that does not answer costs a moment, and not a timeout. This is what RFC 8305 calls
Happy Eyeballs. asyncio offers it for the addresses of one name, and uvloop does not. Here all
servers take part, and one that accepts a connection and says nothing is passed over as well.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ...exceptions import NotSent
from ...realtime import monotonic
from .progress import Stage

_STAGGER_S = 0.25
"""How long an attempt is alone before the next one begins, as RFC 8305 recommends."""
_LOGIN_S = 1.0
"""The same for one whose server has greeted: a second login would be work for the servers."""


class Opened(Protocol):
    """A connection, of which a race may have one too many."""

    def abort(self) -> None:
        """Close it at once."""


class Attempt(Protocol):
    """One of the ways to a connection."""

    @property
    def stage(self) -> Stage:
        """How far it has come."""

    @property
    def greeted(self) -> bool:
        """Whether the server has greeted."""

    async def run(self) -> Any:
        """Return a connection, or a list of attempts to make in place of this one."""

    def late(self) -> Exception:
        """Return the error for an attempt that has taken too long."""


class Race:
    """Makes attempts until one succeeds, on the loop's thread."""

    def __init__(self, attempts: Iterable[Attempt], seconds: float, *, together: bool) -> None:
        """Make a race, in the order of the attempts.

        With ``together``, the whole race ends after ``seconds``. Otherwise a server that has
        greeted in time has as long to itself.
        """
        self._queue = deque(attempts)
        self._seconds = seconds
        self._together = together
        self._running: dict[asyncio.Task[Any], tuple[Attempt, float]] = {}
        """Each attempt, and when it began, by its task."""
        self._count = len(self._queue)
        """How many ways to a connection are known."""
        self._began = monotonic()
        self._last_start = -math.inf
        """When the last attempt began. The next need not wait if one has ended since."""
        self._furthest = Stage.LOOKUP
        self._failure: Exception = NotSent("no server is configured")
        """That of the attempt that has come furthest."""

    async def run(self, failures: list[Exception]) -> Any:
        """Return the first connection. Add the failure of each attempt to ``failures``.

        If there is no connection, raise the failure of the attempt that has come furthest.
        """
        try:
            while self._queue or self._running:
                if self._queue and monotonic() >= self._next_start():
                    self._start()
                elif (winner := await self._wait(failures)) is not None:
                    return winner
            raise self._failure
        finally:
            for task in self._running:
                _drop(task)

    def _start(self) -> None:
        attempt, now = self._queue.popleft(), monotonic()
        task = asyncio.get_running_loop().create_task(attempt.run())
        self._running[task] = attempt, now
        self._last_start = now

    def _next_start(self) -> float:
        # All begin in the first half of the time, so that the last one has the other half.
        stagger = min(_STAGGER_S, self._seconds / 2 / self._count)
        login = min(_LOGIN_S, self._seconds / 2)
        greeted = [began for each, began in self._running.values() if each.greeted]
        return max([self._last_start + stagger, *(began + login for began in greeted)])

    def _end(self, attempt: Attempt, began: float) -> float:
        """Return when an attempt is given up."""
        end = self._began + self._seconds
        if self._together:
            return end
        fair = self._seconds if attempt.greeted else self._seconds / 2
        return max(end, began + fair)

    async def _wait(self, failures: list[Exception]) -> Any:
        """Wait until something is to be done. Return a connection if there is one."""
        events = [self._end(*each) for each in self._running.values()]
        if self._queue:
            events.append(self._next_start())
        timeout = max(0.0, min(events) - monotonic())
        done, _ = await asyncio.wait(
            self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            attempt, _ = self._running.pop(task)
            try:
                result = task.result()
            except Exception as error:
                self._fail(attempt, error, failures)
            else:
                if not isinstance(result, list):
                    return result
                self._replace(result)
        now = monotonic()
        for task, (attempt, began) in list(self._running.items()):
            if now >= self._end(attempt, began):
                del self._running[task]
                _drop(task)
                self._fail(attempt, attempt.late(), failures)
        if self._together and now >= self._began + self._seconds:
            if self._queue and not failures:  # a look-up, for example, took all of the time
                self._fail(self._queue[0], self._queue[0].late(), failures)
            self._queue.clear()
        return None

    def _fail(self, attempt: Attempt, error: Exception, failures: list[Exception]) -> None:
        failures.append(error)
        if attempt.stage >= self._furthest:
            self._furthest, self._failure = attempt.stage, error
        self._last_start = -math.inf

    def _replace(self, attempts: Sequence[Attempt]) -> None:
        self._queue.extendleft(reversed(attempts))
        self._count += len(attempts) - 1
        self._last_start = -math.inf


_dropped: set[asyncio.Task[Any]] = set()
"""Attempts that have yet to end. Their loops keep only weak references."""


def _drop(task: asyncio.Task[Any]) -> None:
    """Cancel an attempt, and close the connection that it may have made all the same."""
    task.cancel()
    _dropped.add(task)  # before Python 3.12, wait_for() may lose a cancellation
    task.add_done_callback(_close)


def _close(task: asyncio.Task[Any]) -> None:
    _dropped.discard(task)
    # When it is cancelled, nats-py may raise another error, or none.
    if task.cancelled() or task.exception() is not None:
        return
    result: Opened | list[Attempt] = task.result()
    if not isinstance(result, list):
        result.abort()
