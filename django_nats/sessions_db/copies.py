"""The copies of sessions in a cache. The database has the sessions themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..cache import NatsCache
from ..cache.core import logger
from ..cache.records import Data, Record, Records
from ..client.operations import AWAY, note_hidden
from ..client.protocol.steps import Steps
from ..client.transport import forks
from ..exceptions import NatsError

T = TypeVar("T")

DEFAULT_COPY_AGE = 60
_MAX_DOUBTS = 100_000
_BATCH = 256


def copy_age() -> float:
    """Return SESSION_COPY_AGE: the seconds after which every copy has expired."""
    seconds = getattr(settings, "SESSION_COPY_AGE", DEFAULT_COPY_AGE)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ImproperlyConfigured(
            f"SESSION_COPY_AGE is {seconds!r}, not a number of seconds that is 0 or more."
        )
    return seconds


class Copies:
    """The copies in one cache. While it is away there are none, and no method raises.

    A copy is only stored over the message that its writer has seen before the database was asked:
    if that has changed, another request has stored a copy, and it is not known which is newer. Then
    the copy is deleted, and the next request makes one. If that deletion may not have arrived, the
    copy is in doubt.
    """

    def __init__(self, cache: NatsCache, records: Records) -> None:
        self._cache = cache
        self._records = records
        self._age = copy_age()
        self._doubts = _doubts.setdefault(cache.alias, Doubts())

    def find(self, key: str) -> Steps[tuple[Data | None, Record | None]]:
        """Return the copy of a session, or None, and the record of its key.

        The record is None if the cache is away. Copies in doubt are deleted first.
        """
        try:
            while doubtful := self._doubts.some():
                yield from self._records.discard(*doubtful)
                self._doubts.settle(doubtful)
            return (yield from self._records.read(key))
        except AWAY as error:
            self._log(error)
            return None, None

    def fill(self, key: str, data: Data, seconds: float, sequence: int) -> Steps[int | None]:
        """Store the copy of a session that had none. Return its sequence, or None without one."""
        try:
            record = yield from self._store(key, data, seconds, sequence)
        except Exception as error:
            self._log(error)
            return None
        return None if record is None else record.sequence

    def replace(
        self, key: str, data: Data, seconds: float, sequence: int | None
    ) -> Steps[int | None]:
        """Store the copy of a changed session, or else delete the copy it had.

        Return the sequence of the copy, or None if there is none.
        """
        stored = None
        if sequence is not None:
            stored = yield from self.fill(key, data, seconds, sequence)
        if stored is None:
            yield from self.discard(key)
        return stored

    def discard(self, key: str) -> Steps[None]:
        """Delete the copy of a session."""
        with self.changing(key):
            try:
                yield from self._records.discard(key)
            except NatsError as error:
                self._log(error)
                self._doubts.note(key)

    @contextmanager
    def changing(self, key: str) -> Iterator[Callable[..., Any]]:
        """Note that the copy of a session is in doubt, unless the block comes to its end.

        The block calls what changes the database by the function that it gets. If the block is
        cancelled, that goes on in its thread, and the copy is in doubt again when it ends.
        """
        is_cancelled = False

        def change(function: Callable[..., T], *arguments: Any) -> T:
            try:
                return function(*arguments)
            finally:
                if is_cancelled:
                    self._doubts.note(key)

        try:
            yield change
        except BaseException:
            is_cancelled = True
            self._doubts.note(key)
            raise

    def _store(self, key: str, data: Data, seconds: float, sequence: int) -> Steps[Record | None]:
        return self._records.store(key, data, min(seconds, self._age), sequence)

    def _log(self, error: Exception) -> None:
        """Log an error without the session's key."""
        if isinstance(error, AWAY):
            self._records.hide_key(error)
            note_hidden(error)
        else:
            logger.warning(
                "Cache %r: the copy of a session was refused, and the database serves it: %s",
                self._cache.alias,
                type(error).__name__,
            )


class Doubts:
    """Sessions whose copy may be older than the database, as what should have ended it was lost.

    Bounded: the oldest are forgotten. Their copies expire by themselves.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._noted: dict[str, object] = {}

    def note(self, key: str) -> None:
        """Note a key. A deletion that has begun before does not settle it."""
        with self.lock:
            self._noted.pop(key, None)
            self._noted[key] = object()
            if len(self._noted) > _MAX_DOUBTS:
                del self._noted[next(iter(self._noted))]

    def some(self) -> dict[str, object]:
        """Return some of the keys, the oldest ones, for ``settle()``."""
        if not self._noted:
            return {}
        with self.lock:
            return dict(islice(self._noted.items(), _BATCH))

    def settle(self, deleted: dict[str, object]) -> None:
        """Remove keys whose copies have been deleted, unless they were noted again meanwhile."""
        with self.lock:
            for key, noted in deleted.items():
                if self._noted.get(key) is noted:
                    del self._noted[key]


_doubts: dict[str, Doubts] = {}
"""The doubts of this process, by alias."""


def _after_fork() -> None:
    for each in _all_doubts():
        each.lock = threading.Lock()  # another thread of the parent may have held it


def _all_doubts() -> Iterable[Doubts]:
    return _doubts.values()


forks.call_in_child(_after_fork)
