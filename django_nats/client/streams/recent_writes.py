"""What this process has written lately, to recognise a replica's answer that is older."""

from __future__ import annotations

from contextlib import suppress

MAX_REMEMBERED = 10_000


class Recent:
    """The sequences of this process's last writes to one stream.

    Used only for streams with replicas, where any of them answers a direct get. Threads may note
    writes at the same time: a record that is lost to a race costs a stale read, as if it had been
    too old.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._floor = 0
        self._written: dict[str, int] = {}
        """The sequence of the last write to each subject; negative if all up to it was purged."""

    def note(self, subject: str, sequence: int) -> None:
        """Note a write of this process, or a later message that the leader has returned."""
        known = self._written.pop(subject, 0)
        self._written[subject] = max(known, sequence)
        self.newest = max(self.newest, sequence)
        if len(self._written) > MAX_REMEMBERED:
            with suppress(RuntimeError, StopIteration):  # another thread did, at the same moment
                self._written.pop(next(iter(self._written)), None)

    def note_cleared(self, sequence: int) -> None:
        """Note that this process has deleted everything before a sequence."""
        self._floor = max(self._floor, sequence)
        self.newest = max(self.newest, sequence)
        self._written.clear()

    def note_purged(self, subject: str, sequence: int) -> None:
        """Note that this process has purged a subject's messages up to a sequence."""
        self._written[subject] = -sequence
        self.newest = max(self.newest, sequence)

    def note_missing(self, subject: str) -> None:
        """Note that the leader has no message under a subject any more."""
        if self._written.get(subject, 0) > 0:
            self._written.pop(subject, None)

    def written(self) -> list[str]:
        """Return the subjects that have a message of this process."""
        return [subject for subject, sequence in list(self._written.items()) if sequence > 0]

    def is_stale(self, subject: str, sequence: int | None) -> bool:
        """Return True if an answer (None: no message) is older than this process's own writes."""
        if not self.newest:
            return False
        own = self._written.get(subject, 0)
        if sequence is None:
            return own > 0
        return sequence <= -own if own < 0 else sequence < max(own, self._floor)

    def forget(self) -> None:
        """Forget everything: the stream was created again, and counts from 1."""
        self.newest = self._floor = 0
        self._written.clear()
