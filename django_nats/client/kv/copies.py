"""Copies of a bucket's entries in this process, and the one place where news of them comes in.

Reads, this process's own writes and the change feed all bring news of a key at a revision. A copy
is served only while nothing newer is known and the feed is whole. Reads and writes that began
before the feed was last opened install nothing.

Every read and write on its way is an Attempt, and notes all news of its key meanwhile: the answer
may have left the server before news that has overtaken it.

The feed reports in the order of its stream, so what it reports is newer than a copy of a lower
revision. Of two answers, the one with the lower revision may be the newer: another client may have
deleted the stream and made it again, which the feed notices later, and revisions begin again. So
answers that differ leave no copy.

The leader, which answers reads, may be a moment behind the replica that sends the feed. An answer
that is older than an announcement leaves no copy either, even if the read began after that.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

from ...realtime import monotonic
from .announced import Announced
from .entry import EVERYTHING, Entry
from .serial import Serial

P = ParamSpec("P")

OVERHEAD_BYTES = 640
"""What a copy takes besides its payload and key, measured on CPython."""


@dataclass(frozen=True)
class Bounds:
    """How many entries are copied, and for how long."""

    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_stale: float = 1.0
    """Seconds for which copies are served after the feed last proved that they were current."""
    max_age: float = 60.0
    """Seconds after which an entry is read again, for changes that are not announced."""
    misses: bool = False
    """Whether the cache also remembers that a key has no value."""


class Attempt:
    """A read or write of one key that is on its way."""

    __slots__ = ("began", "generation", "key", "newest", "oldest", "subject")

    def __init__(self, key: str, subject: str) -> None:
        self.key = key
        self.subject = subject
        self.generation: object = None
        self.began = monotonic()
        self.newest = 0
        """The highest revision in the news since it began, or that the leader may not have yet."""
        self.oldest = EVERYTHING
        """The lowest revision in another answer since it began; 0 for no value."""


class Copy:
    """An entry at a revision; ``entry`` is None if the key had no value."""

    __slots__ = ("entry", "key", "memo", "revision", "size", "subject", "until")

    def __init__(self, attempt: Attempt, entry: Entry | None, revision: int, until: float) -> None:
        self.key = attempt.key
        self.subject = attempt.subject
        self.entry = entry
        self.revision = revision
        self.until = until
        self.size = OVERHEAD_BYTES + len(self.key) + len(self.subject)
        if entry is not None:
            self.size += len(entry.payload)
        self.memo: tuple[object, Any] | None = None
        """The codec that last decoded it, and the value if that is immutable."""


def _serialized(
    update: Callable[Concatenate[Copies, P], None],
) -> Callable[Concatenate[Copies, P], None]:
    """Run a method one at a time with the others; no copy is served while it has to wait."""

    @functools.wraps(update)
    def serialized(self: Copies, /, *args: P.args, **kwargs: P.kwargs) -> None:
        done = False
        try:
            done = self._serial.run(functools.partial(update, self, *args, **kwargs))
        finally:
            if not done:
                self.fresh_until = 0.0

    return serialized


class Copies:
    """The copies of one bucket within bounds. Any thread may call any method."""

    def __init__(self, bounds: Bounds, covers: Callable[[str], bool]) -> None:
        self.bounds = bounds
        self.covers = covers
        """Whether a made key may be copied; the feed must announce its changes."""
        self.fresh_until = 0.0
        """Copies are served until then, by the monotonic clock."""
        self.hits = self.misses = self.flushes = 0
        self._reset()

    def _reset(self) -> None:
        self._serial = Serial(self._start_over)
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._by_subject: dict[str, Copy] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self._announced = Announced(self.bounds.max_entries)
        self._generation = object()
        self._whole = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._copies)

    # Serving ---------------------------------------------------------------------------------

    def find(self, key: str) -> Copy | None:
        """Return the copy of a made key if it may be served now, else None. Takes no lock."""
        copy = self._copies.get(key)
        if copy is not None:
            now = monotonic()
            if now < self.fresh_until and now < copy.until:
                try:
                    self._copies.move_to_end(key)
                except KeyError:
                    pass  # dropped at this moment; the read began before that
                self.hits += 1
                return copy
        return None

    # Reads and writes ------------------------------------------------------------------------

    def begin(self, key: str, subject: str) -> Attempt:
        """Note a read or write that is about to be sent. One of the next four methods ends it."""
        attempt = Attempt(key, subject)
        self._join(attempt)
        return attempt

    @_serialized
    def end_read(self, attempt: Attempt, entry: Entry | None, clock: float) -> None:
        """End a read that the key's leader, or a lone server, has answered; None for no value.

        ``clock`` is the server's time less that of the monotonic clock.
        """
        self.misses += 1
        self._end(attempt, entry, 0 if entry is None else entry.revision, clock)

    @_serialized
    def end_write(self, attempt: Attempt, entry: Entry | None, revision: int, clock: float) -> None:
        """End a write that was acknowledged at a revision; ``entry`` is None for a delete."""
        self._end(attempt, entry, revision, clock)

    @_serialized
    def end_in_doubt(self, attempt: Attempt) -> None:
        """End a write that was not acknowledged: only the server knows what is stored."""
        self._leave(attempt)
        self._forget(attempt.subject)

    @_serialized
    def give_up(self, attempt: Attempt) -> None:
        """End a read that brought no answer."""
        self._leave(attempt)

    @_serialized
    def found(self, subject: str, revision: int) -> None:
        """Drop the copy of a subject unless it has the revision that another answer had."""
        self._compare(subject, revision)

    @_serialized
    def forget(self, subject: str) -> None:
        """Drop the copy of a subject that may have changed at an unknown revision."""
        self._forget(subject)

    @_serialized
    def forget_all(self) -> None:
        """Drop all copies: any of them may have changed at an unknown revision."""
        for subject in list(self._by_subject):
            self._drop(subject)
        for attempts in self._attempts.values():
            _tell(attempts, EVERYTHING)

    # The feed --------------------------------------------------------------------------------

    @_serialized
    def opened(self, position: int) -> None:
        """Note that the feed announces every change after a position of the stream."""
        self._announced.begin(position)
        self._generation = object()
        self._flush()
        self._whole = True

    @_serialized
    def changed(self, subject: str, revision: int) -> None:
        """Note a change that the feed has announced."""
        copy = self._by_subject.get(subject)
        if copy is not None and copy.revision < revision:
            self._drop(subject)
        self._announced.add(subject, revision)
        _tell(self._attempts.get(subject, ()), revision)

    @_serialized
    def cleared(self, revision: int) -> None:
        """Note that the feed has announced the removal of all that is older than a revision."""
        for subject in list(self._by_subject):
            if self._by_subject[subject].revision < revision:
                self._drop(subject)
        self._announced.begin(revision)
        for attempts in self._attempts.values():
            _tell(attempts, revision)

    @_serialized
    def proven(self, moment: float, stored: int) -> None:
        """Note that all changes up to a moment of the monotonic clock have been announced.

        ``stored`` is the position up to which the leader, or a lone server, has the stream.
        """
        self._announced.settle(stored)
        # Not while an update waits that may be older than that moment.
        if self._whole and not self._serial:
            self.fresh_until = max(self.fresh_until, moment + self.bounds.max_stale)

    def shut(self) -> None:
        """Drop all copies: the feed may have missed something."""
        self.fresh_until = 0.0
        self._close()

    def after_fork(self) -> None:
        """Begin with nothing in a forked child: a thread may have been changing the copies."""
        self.fresh_until = 0.0
        self._reset()

    # Serialized ------------------------------------------------------------------------------

    @_serialized
    def _join(self, attempt: Attempt) -> None:
        attempt.generation = self._generation
        attempt.newest = self._announced.newest(attempt.subject)
        self._attempts.setdefault(attempt.subject, []).append(attempt)

    @_serialized
    def _close(self) -> None:
        self._whole = False
        self.fresh_until = 0.0
        self._generation = object()
        self._flush()

    def _start_over(self) -> None:
        """Drop everything: an update was interrupted, and left it half changed."""
        self.fresh_until = 0.0
        self._generation = object()
        self._attempts.clear()
        self._flush()

    def _forget(self, subject: str) -> None:
        self._drop(subject)
        _tell(self._attempts.get(subject, ()), EVERYTHING)

    def _leave(self, attempt: Attempt) -> None:
        attempts = self._attempts.get(attempt.subject)
        if attempts is not None and attempt in attempts:  # not so in a child of its process
            attempts.remove(attempt)
            if not attempts:
                del self._attempts[attempt.subject]

    def _end(self, attempt: Attempt, entry: Entry | None, revision: int, clock: float) -> None:
        self._leave(attempt)
        self._compare(attempt.subject, revision)
        self._install(attempt, entry, revision, clock)

    def _compare(self, subject: str, revision: int) -> None:
        copy = self._by_subject.get(subject)
        if copy is not None and copy.revision != revision:
            self._drop(subject)
        for attempt in self._attempts.get(subject, ()):
            attempt.newest = max(attempt.newest, revision)
            attempt.oldest = min(attempt.oldest, revision)

    def _install(self, attempt: Attempt, entry: Entry | None, revision: int, clock: float) -> None:
        self._drop(attempt.subject)
        if not self._whole or attempt.generation is not self._generation:
            return
        if not attempt.newest <= revision <= attempt.oldest:
            return
        until = attempt.began + self.bounds.max_age
        if entry is None:
            if not self.bounds.misses:
                return
        elif entry.expires is not None:
            until = min(until, entry.expires - clock)
        copy = Copy(attempt, entry, revision, until)
        if copy.size > self.bounds.max_bytes:
            return
        self._by_subject[copy.subject] = copy
        self._copies[copy.key] = copy
        self.bytes += copy.size
        while len(self._copies) > self.bounds.max_entries or self.bytes > self.bounds.max_bytes:
            # In one step: find(), which takes no lock, moves copies, and that breaks an iterator.
            self._drop(self._copies.popitem(last=False)[1].subject)

    def _drop(self, subject: str) -> None:
        copy = self._by_subject.pop(subject, None)
        if copy is not None:
            self._copies.pop(copy.key, None)
            self.bytes -= copy.size

    def _flush(self) -> None:
        if self._copies:
            self.flushes += 1
        self._copies.clear()
        self._by_subject.clear()
        self.bytes = 0


def _tell(attempts: Iterable[Attempt], revision: int) -> None:
    for attempt in attempts:
        attempt.newest = max(attempt.newest, revision)
