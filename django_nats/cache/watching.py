"""Following the changes of keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import keys
from ..client import bridge
from ..client.entry import EVERYTHING
from ..client.listing import key_of
from ..client.session import Session
from ..client.steps import Item, Steps, Wait
from ..client.wire import is_tombstone
from .listing import Listing, literally

if TYPE_CHECKING:
    from ..client.mailbox import Told

_WITHIN = 1.0


class Change(NamedTuple):
    """A key was set or deleted. Not announced: that it expired, was evicted, or purged by hand."""

    key: str | None
    """As it was given to the cache. None: changes may have been missed before this one, and any
    key may be another by now."""
    revision: int
    """Of the key now; 0 for a gap."""
    deleted: bool
    """Whether the key has no value now."""

    @property
    def gap(self) -> bool:
        """Whether this says only that changes may have been missed."""
        return self.key is None


_GAP = Change(None, 0, False)


class Changes:
    """What ``watch`` returns: to be gone through by ``for`` or by ``async for``."""

    def __init__(self, session: Session, steps: Callable[[], Steps[None]]) -> None:
        self._session = session
        self._steps = steps

    def __iter__(self) -> Iterator[Change]:
        return bridge.iterate(self._session, self._steps())

    def __aiter__(self) -> AsyncIterator[Change]:
        return bridge.aiterate(self._session, self._steps())


class Watching(Listing):
    """The change feed of a bucket, as an iterator."""

    def watch(self, pattern: str = "*", version: int | None = None) -> Changes:
        """Follow the changes of the keys that match, by whichever process, until it is left.

        The first change has ``gap`` set: from there on nothing is missed. After a lost connection
        the feed goes on where it was, several changes of one key being told as one; where that
        cannot be, as after a minute or on a bucket made anew, and after a clear(), ``gap`` is set
        again. The keys that match are those of one version.

        Raises, while it is gone through, what the server refuses the feed with; that the server is
        away is waited for, with FAIL_OPEN or not. Raises NotSent once the process has closed its
        connections, and in a forked child.
        """
        head, tail = self._affixes(version)
        made = f"{literally(head)}{pattern}{literally(tail)}"
        return Changes(self._session, lambda: self._watch(made, head, tail))

    def _watch(self, made: str, head: str, tail: str) -> Steps[None]:
        from ..client.mailbox import Mailbox  # whoever watches nothing does not pay for it

        matches = keys.matcher(made)
        bucket = self._config.bucket
        found = dict.fromkeys([keys.subject_filter(made), keys.CLEAR])
        subjects = [f"$KV.{bucket.name}.{each}" for each in (">" if ">" in found else found)]
        clear = f"$KV.{bucket.name}.{keys.CLEAR}"
        mailbox = Mailbox()

        def change_of(told: Told | None) -> Change | None:
            if told is None or told.subject == clear:
                self._bucket.heard(None, EVERYTHING)
                return _GAP
            self._bucket.heard(told.subject, told.revision)
            key = key_of(bucket.name, told.subject.encode(), told.header)
            if key is None or not matches(key):
                return None
            short = key[len(head) : len(key) - len(tail)]
            return Change(short, told.revision, is_tombstone(told.header))

        watcher = bridge.watcher(self._config.connection, bucket, subjects, mailbox, _WITHIN)
        watcher.start()
        try:
            while True:
                for told in mailbox.take():
                    change = change_of(told)
                    if change is not None:
                        yield Item(change)
                yield Wait(mailbox.tell)
        finally:
            watcher.stop()
