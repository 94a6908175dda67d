"""Changes of counters whose outcome is unknown: they go before new changes of the same counter."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import NamedTuple

from ...realtime import monotonic
from ..protocol.steps import Request


class Doubt(NamedTuple):
    """A change whose outcome is unknown."""

    since: float
    """By the monotonic clock."""
    thread: int | None
    """The thread whose event loop has to go on before the outcome can be known."""


class Doubts:
    """The changes of one stream's counters that may or may not have been applied.

    Threads may note and forget doubts at the same time. A doubt that is lost to a race then holds
    no other change back.
    """

    def __init__(self, longest: float) -> None:
        self._longest_s = longest
        """By then a change has come to an end, or was abandoned together with its event loop."""
        self._doubts: dict[str, dict[Request, Doubt]] = {}

    def clear(self) -> None:
        """Forget all doubts: after a fork, they are the parent's."""
        self._doubts = {}

    def __contains__(self, counter: str) -> bool:
        return counter in self._doubts

    def note(self, counter: str, request: Request, thread: int | None = None) -> None:
        """Note that the outcome of a request is unknown; ``thread`` runs the loop that waits."""
        self._doubts.setdefault(counter, {})[request] = Doubt(monotonic(), thread)

    def forget(self, counter: str, request: Request) -> None:
        """Note that the outcome of a request is known, or that nobody waits for it any more."""
        doubts = self._doubts.get(counter, {})
        doubts.pop(request, None)
        if not doubts:
            self._doubts.pop(counter, None)

    def can_be_settled(self, counter: str) -> bool:
        """Return True if a counter has a doubt that is not too old; forget the older ones."""
        oldest = monotonic() - self._longest_s
        for request, doubt in list(self._doubts.get(counter, {}).items()):
            if doubt.since < oldest:
                self.forget(counter, request)
        return counter in self._doubts

    def is_stuck_here(self, counter: str) -> bool:
        """Return True if a doubt waits for the event loop of this thread.

        A synchronous call that holds up that loop would wait for itself.
        """
        here = thread_of_loop()
        doubts = list(self._doubts.get(counter, {}).values())
        return here is not None and any(each.thread == here for each in doubts)


def thread_of_loop() -> int | None:
    """Return the identity of this thread if an event loop is running on it, else None."""
    return None if asyncio._get_running_loop() is None else get_ident()
