"""A queue of a feed's changes, and where the feed continues after a break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ...exceptions import NatsError
from ...realtime import monotonic

MAX_CHANGES = 10_000
"""Number of changes kept for a reader. A reader that falls further behind gets a gap instead."""
_TOMBSTONES_KEPT_S = 50.0
"""How long the server surely keeps tombstones. A feed that continues within it misses no delete."""


class FeedMessage(NamedTuple):
    """A stored message that the feed has reported."""

    subject: str
    revision: int
    header: bytes


class Mailbox:
    """A feed's listener that queues the changes for a reader, which takes them at its own pace.

    None among the changes is a gap: changes may be missing at this place.
    """

    def __init__(self) -> None:
        """Make an empty mailbox. Its changes will begin with a gap."""
        self._changes: deque[FeedMessage | None] = deque()
        self._callbacks: deque[Callable[[], object]] = deque()
        self._error: NatsError | None = None
        self._stream_created: str | None = None
        """The creation time of the stream, by which a recreated one is recognised."""
        self._last_revision = 0
        self._proven_at = 0.0
        self._gap_is_due = True

    # For the reader --------------------------------------------------------------------------

    def take(self) -> list[FeedMessage | None]:
        """Remove and return all queued changes.

        Raise the error by which the server has refused the feed, or by which the feed has ended.
        """
        if self._error is not None:
            raise self._error
        taken = []
        with suppress(IndexError):  # the feed may have dropped changes meanwhile
            for _ in range(len(self._changes)):
                taken.append(self._changes.popleft())
        return taken

    def notify(self, callback: Callable[[], object]) -> None:
        """Register a function to call when take() has something, which may be now.

        It is called once, on any thread.
        """
        self._callbacks.append(callback)
        if self._changes or self._error is not None:
            self._call_back()

    # For the feed ----------------------------------------------------------------------------

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        """Return the position after the last change, or the stream's end if that is impossible."""
        state = stream["state"]
        resumes = (
            stream["created"] == self._stream_created
            and state["last_seq"] >= self._last_revision
            # Such a stream may lose messages in a crash, and use their sequences again.
            and stream["config"].get("persist_mode") != "async"
            and monotonic() - self._proven_at < _TOMBSTONES_KEPT_S
        )
        if not resumes:
            self._gap_is_due = True
            self._stream_created, self._last_revision = stream["created"], state["last_seq"]
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last_revision + 1}

    def opened(self, position: int) -> None:
        """Add the gap that is due, and wake the reader."""
        # First in the queue. Changes may have arrived already, but none from before the gap.
        if self._gap_is_due:
            self._gap_is_due = False
            self._changes.appendleft(None)
        self._call_back()

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        """Queue a change, and wake the reader."""
        if len(self._changes) >= MAX_CHANGES:
            self._changes = deque([None])
        self._changes.append(FeedMessage(subject, revision, header))
        # Last: if a signal's handler raises before this, the next feed reports the change again.
        self._last_revision = revision
        self._call_back()

    def proven(self, moment: float, stored: int) -> None:
        """Note up to when no change is missing."""
        self._proven_at = moment

    def shut(self) -> None:
        """Do nothing. Whether changes were missed shows when the feed continues."""

    def refused(self, error: NatsError) -> None:
        """Have take() raise the error, and wake the reader."""
        self._error = error
        self._call_back()

    def ended(self, error: NatsError) -> None:
        """Have take() raise the error, and wake the reader."""
        self.refused(error)

    # On any thread ---------------------------------------------------------------------------

    def _call_back(self) -> None:
        with suppress(IndexError, ValueError):  # another thread may be doing the same
            while True:
                callback = self._callbacks[0]
                callback()  # called before it is removed, as a signal's handler may raise between
                self._callbacks.remove(callback)
