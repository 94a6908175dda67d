"""What this process has written lately, to recognise a replica's answer that is older."""

from __future__ import annotations

from collections.abc import Sequence

_GENERATION = 5_000
"""Subjects that are remembered at least, and at most twice as many."""


class Recent:
    """The sequences of this process's last writes to one stream, by subject.

    It is kept for every stream: one replica may become three while this process does not know yet.
    Threads may note writes at the same time: a record that is lost to a race costs a stale read, as
    if it had been too old.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._purged = 0
        """The last sequence that a purge of a subject may have removed."""
        self._floor = 0
        self._created = ""
        """When the stream was created, in the server's words."""
        # In two generations, so that a write neither moves nor drops the record of another.
        self._young: dict[bytes, int] = {}
        """The sequence of the last write to each subject; negative if all up to it was purged."""
        self._old: dict[bytes, int] = {}

    def note(self, subject: bytes, sequence: int) -> None:
        """Note a write of this process, or a later message that the leader has returned."""
        if sequence > self.newest:
            self.newest = sequence
            self._young[subject] = sequence
        else:
            known = self._known(subject)
            self._young[subject] = known if abs(known) >= sequence else sequence
        if len(self._young) > _GENERATION:
            self._old, self._young = self._young, {}

    def note_many(self, subjects: Sequence[bytes], sequences: Sequence[int]) -> None:
        """Note many writes, in less time."""
        if min(sequences, default=0) <= self.newest:  # another thread was acknowledged meanwhile
            for subject, sequence in zip(subjects, sequences, strict=True):
                self.note(subject, sequence)
            return
        self.newest = max(sequences)
        for start in range(0, len(subjects), _GENERATION):
            part = slice(start, start + _GENERATION)
            self._young.update(zip(subjects[part], sequences[part], strict=True))
            if len(self._young) > _GENERATION:
                self._old, self._young = self._young, {}

    def note_cleared(self, sequence: int) -> None:
        """Note that this process has deleted everything before a sequence."""
        self._floor = max(self._floor, sequence)
        self.newest = max(self.newest, sequence)
        self._purged = 0
        self._young, self._old = {}, {}

    def note_purged(self, subject: bytes, sequence: int) -> None:
        """Note that this process has purged a subject's messages up to a sequence."""
        self._young[subject] = -sequence
        self.newest = max(self.newest, sequence)
        self._purged = max(self._purged, sequence)

    def note_missing(self, subject: bytes) -> None:
        """Note that the leader has no message under a subject any more."""
        if self._known(subject) > 0:
            self._young.pop(subject, None)
            self._old.pop(subject, None)

    def written(self) -> list[bytes]:
        """Return the subjects that have a message of this process."""
        known = {**self._old.copy(), **self._young.copy()}
        return [subject for subject, sequence in known.items() if sequence > 0]

    def is_stale(self, subject: bytes, sequence: int | None) -> bool:
        """Return True if an answer (None: no message) is older than this process's own writes."""
        if not self.newest:
            return False
        own = self._known(subject)
        if sequence is None:
            return own > 0
        return sequence <= -own if own < 0 else sequence < max(own, self._floor)

    def may_be_missing(self, reached: int, newest: int) -> bool:
        """Return True if a replica may not have all writes of this process up to ``newest``.

        ``reached`` is the last sequence that it had. A purge has no sequence: a replica has it that
        has a message after it.
        """
        return reached < newest or 0 < self._purged >= reached

    def note_stream(self, created: str, last: int, newest: int) -> None:
        """Forget everything if the stream is another one than before.

        ``created`` and ``last`` are what the server says of it, and ``newest`` is what was known
        when it was asked.
        """
        if last < newest or self._created not in ("", created):
            self.forget()
        self._created = created

    def forget(self) -> None:
        """Forget everything: the stream was created again, and counts from 1."""
        self.newest = self._floor = self._purged = 0
        self._young, self._old = {}, {}

    def _known(self, subject: bytes) -> int:
        own = self._young.get(subject)
        return self._old.get(subject, 0) if own is None else own
