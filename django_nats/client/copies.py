"""Copies of a bucket's entries in this process, and the one door by which all news of them enters.

What a read found, what this process has written, and what the change feed tells are all news of a
key at a revision. A copy is served only while nothing newer is known and the feed is whole: the
highest revision wins, and what was begun before the feed was opened anew counts for nothing.

Every read and every write that is on its way is an Attempt, and learns of all that is heard of its
key meanwhile: an answer may have left the server before news that has overtaken it.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Concatenate, ParamSpec

from .entry import EVERYTHING, Entry
from .turns import Turns

P = ParamSpec("P")

OVERHEAD = 640
"""Bytes that a copy takes besides its payload and key, measured on CPython."""


@dataclass(frozen=True)
class Bounds:
    """How much is copied, and for how long."""

    max_entries: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_stale: float = 1.0
    """Seconds for which copies are served when nothing proves any more that they are current."""
    max_age: float = 60.0
    """Seconds after which a copy is read anew: what changes without being announced."""
    misses: bool = False
    """Whether it is kept, too, that a key has no value."""


class Attempt:
    """A read or a write of one key that is on its way."""

    __slots__ = ("began", "generation", "gone", "key", "seen", "subject")

    def __init__(self, key: str, subject: str) -> None:
        self.key = key
        self.subject = subject
        self.generation: object = None
        self.began = monotonic()
        self.seen = 0
        """The highest revision heard of since it began."""
        self.gone = False
        """Whether a read has found no value meanwhile, as of a revision that nobody knows."""


class Copy:
    """An entry, or that there is none, as of a revision."""

    __slots__ = ("entry", "key", "memo", "revision", "size", "subject", "until")

    def __init__(self, attempt: Attempt, entry: Entry | None, revision: int, until: float) -> None:
        self.key = attempt.key
        self.subject = attempt.subject
        self.entry = entry
        self.revision = revision
        self.until = until
        self.size = OVERHEAD + len(self.key) + len(self.subject)
        if entry is not None:
            self.size += len(entry.payload)
        self.memo: tuple[object, Any] | None = None
        """Who has decoded it last, and the value, where nobody can change that."""


def _in_turn(
    update: Callable[Concatenate[Copies, P], None],
) -> Callable[Concatenate[Copies, P], None]:
    """An update that none other comes between; where it must wait, no copy is served meanwhile."""

    @functools.wraps(update)
    def in_turn(self: Copies, /, *args: P.args, **kwargs: P.kwargs) -> None:
        done = False
        try:
            done = self._turns.take(functools.partial(update, self, *args, **kwargs))
        finally:
            if not done:
                self.fresh_until = 0.0

    return in_turn


class Copies:
    """The copies of one bucket, under one set of bounds; for any thread."""

    def __init__(self, bounds: Bounds, covers: Callable[[str], bool]) -> None:
        self.bounds = bounds
        self.covers = covers
        """Whether a made key is to be copied, of whose changes the feed must tell."""
        self.fresh_until = 0.0
        """On the monotonic clock: until then the feed is known to have told everything."""
        self.hits = self.misses = self.flushes = 0
        self._reset()

    def _reset(self) -> None:
        self._turns = Turns(self._start_over)
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._by_subject: dict[str, Copy] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self._generation = object()
        self._whole = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._copies)

    # Serving ---------------------------------------------------------------------------------

    def find(self, key: str) -> Copy | None:
        """The copy of a made key, if it may be served now. Takes no lock."""
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
        """A read or a write is about to be sent. It must end, by one of the next four."""
        attempt = Attempt(key, subject)
        self._join(attempt)
        return attempt

    @_in_turn
    def end_read(self, attempt: Attempt, entry: Entry | None, clock: float) -> None:
        """What whoever decides on the key's writes has answered; None for no value.

        ``clock`` is what the server's time is ahead of the monotonic one.
        """
        self.misses += 1
        self._leave(attempt)
        if entry is not None:
            self._hear(attempt.subject, entry.revision)
            self._install(attempt, entry, entry.revision, clock)
        else:
            for other in self._attempts.get(attempt.subject, ()):
                other.gone = True
            self._install(attempt, None, 0, clock)

    @_in_turn
    def end_write(self, attempt: Attempt, entry: Entry | None, revision: int, clock: float) -> None:
        """The server has acknowledged a write at a revision; None for a delete."""
        self._leave(attempt)
        self._hear(attempt.subject, revision)
        self._install(attempt, entry, revision, clock)

    @_in_turn
    def end_in_doubt(self, attempt: Attempt) -> None:
        """A write was not acknowledged: what is stored is for the server to say."""
        self._leave(attempt)
        self._forget(attempt.subject)

    @_in_turn
    def give_up(self, attempt: Attempt) -> None:
        """A read has brought no answer."""
        self._leave(attempt)

    @_in_turn
    def forget(self, subject: str) -> None:
        """Something may have happened to a subject that no revision tells of."""
        self._forget(subject)

    # The feed --------------------------------------------------------------------------------

    @_in_turn
    def opened(self) -> None:
        """From now on the feed tells of every change."""
        self._generation = object()
        self._flush()
        self._whole = True

    @_in_turn
    def changed(self, subject: str, revision: int) -> None:
        """The feed tells of a change."""
        self._hear(subject, revision)

    @_in_turn
    def cleared(self, revision: int) -> None:
        """All that is older than a revision is gone."""
        for subject in list(self._by_subject):
            if self._by_subject[subject].revision < revision:
                self._drop(subject)
        for attempts in self._attempts.values():
            _tell(attempts, revision)

    @_in_turn
    def proven(self, moment: float) -> None:
        """Everything up to a moment of the monotonic clock has been heard."""
        # Not while there is news that may be older than that moment.
        if self._whole and not self._turns:
            self.fresh_until = max(self.fresh_until, moment + self.bounds.max_stale)

    def shut(self) -> None:
        """The feed may have missed something: no copy counts any more."""
        self.fresh_until = 0.0
        self._close()

    def after_fork(self) -> None:
        """In a forked child: begin with nothing. Another thread may have had its turn."""
        self.fresh_until = 0.0
        self._reset()

    # In turn ---------------------------------------------------------------------------------

    @_in_turn
    def _join(self, attempt: Attempt) -> None:
        attempt.generation = self._generation
        self._attempts.setdefault(attempt.subject, []).append(attempt)

    @_in_turn
    def _close(self) -> None:
        self._whole = False
        self.fresh_until = 0.0
        self._generation = object()
        self._flush()

    def _start_over(self) -> None:
        """An update has been interrupted: what is half changed does not count."""
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

    def _hear(self, subject: str, revision: int) -> None:
        copy = self._by_subject.get(subject)
        if copy is not None and copy.revision < revision:
            self._drop(subject)
        _tell(self._attempts.get(subject, ()), revision)

    def _install(self, attempt: Attempt, entry: Entry | None, revision: int, clock: float) -> None:
        known = self._by_subject.get(attempt.subject)
        # What is newer is not kept, either: it may be of a stream that is no more, and this of the
        # one that was made anew, where revisions begin again.
        if known is not None:
            self._drop(attempt.subject)
            if known.revision > revision:
                return
        if not self._whole or attempt.generation is not self._generation:
            return
        if revision < attempt.seen or (attempt.gone and entry is not None):
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
            # In one step: an iterator would notice that find(), without the lock, moves copies.
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
        attempt.seen = max(attempt.seen, revision)
