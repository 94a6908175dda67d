"""What this process has written lately: how it knows a replica's answer that is older."""

from __future__ import annotations

from contextlib import suppress

_MOST = 10_000


class Recent:
    """The sequences of this process's last writes to one stream.

    Kept only for streams with replicas, where any of them answers a direct get. Threads may note
    at the same time: a record that is lost costs a stale read, as if it had been too old.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._floor = 0
        self._written: dict[str, int] = {}
        """The sequence of the last write to each subject; negative: all up to there is gone."""

    def note(self, subject: str, sequence: int) -> None:
        """This process has written a subject, or the leader told it of a later message there."""
        known = self._written.pop(subject, 0)
        self._written[subject] = max(known, sequence)
        self.newest = max(self.newest, sequence)
        if len(self._written) > _MOST:
            with suppress(RuntimeError, StopIteration):  # another thread did, at the same moment
                self._written.pop(next(iter(self._written)), None)

    def note_cleared(self, sequence: int) -> None:
        """This process has removed everything before a sequence."""
        self._floor = max(self._floor, sequence)
        self.newest = max(self.newest, sequence)
        self._written.clear()

    def note_purged(self, subject: str, sequence: int) -> None:
        """This process has removed what a subject had up to a sequence, and left no message."""
        self._written[subject] = -sequence
        self.newest = max(self.newest, sequence)

    def note_missing(self, subject: str) -> None:
        """The leader has nothing under a subject any more."""
        if self._written.get(subject, 0) > 0:
            self._written.pop(subject, None)

    def written(self) -> list[str]:
        """The subjects that have a message by this process."""
        return [subject for subject, sequence in list(self._written.items()) if sequence > 0]

    def is_stale(self, subject: str, sequence: int | None) -> bool:
        """Whether an answer, None for nothing there, is older than what this process has done."""
        if not self.newest:
            return False
        own = self._written.get(subject, 0)
        if sequence is None:
            return own > 0
        return sequence <= -own if own < 0 else sequence < max(own, self._floor)

    def forget(self) -> None:
        """The stream has been made anew, and counts from 1 again."""
        self.newest = self._floor = 0
        self._written.clear()
