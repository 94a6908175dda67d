"""The near caches of a bucket: every read and write of this process tells them what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..streams.clock import Clock
from .entry import Entry, Write

if TYPE_CHECKING:
    from .copies import Attempt, Copies


class NearCaches:
    """The near caches that keep copies of a bucket's values.

    A read or write of a key that they cover begins with ``begin``, and ends with one of
    ``end_read``, ``end_write`` and ``give_up``: an answer may have left the server before news
    that has overtaken it, and ``copies`` has to know what was on its way.
    """

    def __init__(self, copies: Sequence[Copies], clock: Clock) -> None:
        """Take a list of copies, which gets longer when another near cache is first used."""
        self.copies = copies
        self._clock = clock

    def begin(self, key: str, subject: str) -> list[tuple[Copies, Attempt]]:
        """Note that a key is about to be read or written. Return what the end must be given."""
        return [(each, each.begin(key, subject)) for each in self.copies if each.covers(key)]

    def give_up(self, attempts: Sequence[tuple[Copies, Attempt]]) -> None:
        """End a read that brought no answer."""
        for copies, attempt in attempts:
            copies.give_up(attempt)

    def end_read(self, attempts: Sequence[tuple[Copies, Attempt]], entry: Entry | None) -> None:
        """End a read of the leader's value, or of a lone server's; None for no value."""
        for copies, attempt in attempts:
            copies.end_read(attempt, entry, self._clock.offset)

    def end_write(
        self,
        attempts: Sequence[tuple[Copies, Attempt]],
        write: Write | None,
        revision: int | None,
        began: float,
    ) -> None:
        """End a write that began at a time on the server's clock.

        ``write`` is None for a delete; ``revision`` is None if the write was not acknowledged.
        """
        for copies, attempt in attempts:
            if revision is None:
                copies.end_in_doubt(attempt)
            else:
                entry = None if write is None else write.stored(revision, began)
                copies.end_write(attempt, entry, revision, self._clock.offset)

    def forget(self, subject: str) -> None:
        """Drop the copies of a subject, which has changed, or was found changed."""
        for copies in self.copies:
            copies.forget(subject)

    def found(self, subject: str, revision: int) -> None:
        """Drop the copies of a subject that are not of the revision at which it was found."""
        for copies in self.copies:
            copies.found(subject, revision)

    def forget_all(self) -> None:
        """Drop all copies: any of them may have changed."""
        for copies in self.copies:
            copies.forget_all()
