"""The changes of a feed that are still to be taken, and where the feed goes on after a break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from ..exceptions import NatsError

MOST = 10_000
"""Changes kept for a reader; one that falls further behind is told of a gap instead."""
_REMEMBERED = 50.0
"""Seconds for which the server surely keeps tombstones: a delete is not missed until then."""


class Told(NamedTuple):
    """A message that the feed told of."""

    subject: str
    revision: int
    header: bytes


class Mailbox:
    """A feed's listener for a reader of its own pace; None among what it takes is a gap."""

    def __init__(self) -> None:
        self._told: deque[Told | None] = deque()
        self._wakes: deque[Callable[[], object]] = deque()
        self._refusal: NatsError | None = None
        self._created: str | None = None
        self._last = 0
        self._proven = 0.0
        self._gap = True

    # For the reader --------------------------------------------------------------------------

    def take(self) -> list[Told | None]:
        """All that there is. Raises what the server refused the feed with, or what ended it."""
        if self._refusal is not None:
            raise self._refusal
        taken = []
        with suppress(IndexError):  # the feed has thrown away what was too much, meanwhile
            for _ in range(len(self._told)):
                taken.append(self._told.popleft())
        return taken

    def tell(self, wake: Callable[[], object]) -> None:
        """Have a function called once, when there is something, maybe now."""
        self._wakes.append(wake)
        if self._told or self._refusal is not None:
            self._wake()

    # For the feed ----------------------------------------------------------------------------

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        state = stream["state"]
        resumes = (
            stream["created"] == self._created
            and state["last_seq"] >= self._last
            # After a crash, other messages than before may have the same sequences.
            and stream["config"].get("persist_mode") != "async"
            and monotonic() - self._proven < _REMEMBERED
        )
        if not resumes:
            self._gap = True
            self._created, self._last = stream["created"], state["last_seq"]
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}

    def opened(self) -> None:
        # Before what has been told already: of an earlier state nothing is known.
        if self._gap:
            self._gap = False
            self._told.appendleft(None)
        self._wake()

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        if len(self._told) >= MOST:
            self._told = deque([None])
        self._told.append(Told(subject, revision, header))
        # Last: what a signal's handler has raised in between is told again, by the next feed.
        self._last = revision
        self._wake()

    def proven(self, moment: float) -> None:
        self._proven = moment

    def shut(self) -> None:
        """Nothing: whether something was missed shows when the feed goes on."""

    def refused(self, error: NatsError) -> None:
        self._refusal = error
        self._wake()

    def ended(self, error: NatsError) -> None:
        self.refused(error)

    # On any thread ---------------------------------------------------------------------------

    def _wake(self) -> None:
        with suppress(IndexError, ValueError):  # another thread has done the same meanwhile
            while True:
                wake = self._wakes[0]
                wake()  # before it is taken out: a signal's handler may raise between the two
                self._wakes.remove(wake)
