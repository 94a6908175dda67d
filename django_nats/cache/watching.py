"""Following the changes of keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import keys
from ..client import drivers, process
from ..client.kv.listing import key_of
from ..client.protocol.steps import Item, ItemSteps, Wait
from ..client.protocol.wire import is_tombstone
from ..client.transport.session import Session
from .core import Core
from .made_patterns import MadePattern, made_pattern

if TYPE_CHECKING:
    from ..client.feed.mailbox import FeedMessage

_MAX_UNPROVEN_S = 1.0
"""A feed that has not proven for this long that it is complete is replaced."""


class Change(NamedTuple):
    """A key that was set or deleted, or a gap in the feed.

    The server does not announce that a key has expired, was evicted, or was purged by hand.
    """

    key: str | None
    """The key as it was given to the cache. None for a gap: changes before this one may have been
    missed, so that any key may have another value."""
    revision: int
    """The new revision of the key, or 0 for a gap."""
    deleted: bool
    """True if the key has no value any more."""

    @property
    def gap(self) -> bool:
        """Return True if this is a gap: changes may have been missed."""
        return self.key is None


_GAP = Change(None, 0, False)


class Changes:
    """The changes that ``watch`` returns, for a ``for`` or an ``async for`` statement."""

    def __init__(self, session: Session, steps: Callable[[], ItemSteps[Change]]) -> None:
        self._session = session
        self._steps = steps

    def __iter__(self) -> Iterator[Change]:
        return drivers.iterate(self._session, self._steps())

    def __aiter__(self) -> AsyncIterator[Change]:
        return drivers.aiterate(self._session, self._steps())


class Watching(Core):
    """The change feed of the bucket, as an iterator."""

    def watch(self, pattern: str = "*", version: int | None = None) -> Changes:
        """Follow the changes of the keys that match, made by any process, until the loop is left.

        Only keys of one version match. Nothing is missed after the first change, which has ``gap``
        set. After a lost connection the feed resumes where it stopped, and reports several changes
        of one key as one. ``gap`` is set again if the feed cannot resume, because the connection
        was lost for about a minute or the bucket was recreated, and after ``clear()``.

        While the server is away, the iteration waits for it, with or without FAIL_OPEN. It raises
        the error with which the server refuses the feed, and NotSent in a forked child or after the
        process has closed its connections.
        """
        made = made_pattern(self, pattern, version)
        return Changes(self.session, lambda: self._watch(made))

    def _watch(self, made: MadePattern) -> ItemSteps[Change]:
        from ..client.feed.mailbox import Mailbox  # not imported in processes that watch nothing

        matches = keys.matcher(made.pattern)
        bucket = self._config.bucket
        wanted = dict.fromkeys([keys.subject_filter(made.pattern), keys.CLEAR])
        subjects = [f"$KV.{bucket.name}.{each}" for each in (">" if ">" in wanted else wanted)]
        clear = f"$KV.{bucket.name}.{keys.CLEAR}"
        mailbox = Mailbox()

        def change_of(message: FeedMessage | None) -> Change | None:
            if message is None or message.subject == clear:
                self._bucket.missed()
                return _GAP
            self._bucket.heard(message.subject, message.revision)
            key = key_of(bucket.name, message.subject.encode(), message.header)
            if key is None or not matches(key):
                return None
            return Change(made.user_key(key), message.revision, is_tombstone(message.header))

        watcher = process.watcher(
            self._config.connection, bucket, subjects, mailbox, _MAX_UNPROVEN_S
        )
        watcher.start()
        try:
            while True:
                for message in mailbox.take():
                    change = change_of(message)
                    if change is not None:
                        yield Item(change)
                yield Wait(mailbox.notify)
        finally:
            watcher.stop()
