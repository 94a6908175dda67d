"""What a near cache does with the messages of its change feed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .. import keys
from ..client.kv.copies import Copies
from ..client.kv.listing import key_of
from ..client.protocol.wire import is_tombstone
from ..client.transport import forks
from ..exceptions import NatsError
from ..signals import key_changed
from .announce import announcer
from .patterns import user_key


class Follower:
    """A listener of the change feed that updates the copies and has key_changed sent."""

    def __init__(self, copies: Copies, bucket: str, head: str | None) -> None:
        self.aliases: dict[str, None] = {}
        self._copies = copies
        self._bucket = bucket
        self._head = head
        self._clear_subject = f"$KV.{bucket}.{keys.CLEAR}"

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        """Have the feed begin with the next change: there are no copies of earlier values."""
        return {"deliver_policy": "new"}

    def opened(self, position: int) -> None:
        """Make copies from now on, and announce that changes may have been missed before."""
        self._copies.opened(position)
        # Announced now, not when the previous feed ended: a receiver that reads a value at once is
        # sent all changes that follow.
        self._announce(None, 0, b"")

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        """Drop the copies that are older than a change, and announce the change."""
        if subject == self._clear_subject:
            self._copies.cleared(revision)
            self._announce(None, revision, header)
        else:
            self._copies.changed(subject, revision)
            self._announce(subject, revision, header)

    def proven(self, moment: float, stored: int) -> None:
        """Serve copies for MAX_STALE seconds from this moment of the monotonic clock."""
        self._copies.proven(moment, stored)

    def shut(self) -> None:
        """Drop all copies: the feed may have missed changes."""
        self._copies.shut()

    def refused(self, error: NatsError) -> None:
        """Do nothing: every read goes to the server, and the watcher has logged the error."""

    def ended(self, error: NatsError) -> None:
        """Do nothing: the next read starts the feed again."""

    def _announce(self, subject: str | None, revision: int, header: bytes) -> None:
        if key_changed.receivers:
            announcer.put(partial(self._send, subject, revision, header), self._send_gap)

    def _send_gap(self) -> None:
        self._send(None, 0, b"")

    def _send(self, subject: str | None, revision: int, header: bytes) -> None:
        key: str | None = None
        version: int | str | None = None
        if subject is not None:
            made_key = key_of(self._bucket, subject.encode(), header)
            if made_key is None or not self._copies.covers(made_key):
                return
            key = made_key
            parts = None if self._head is None else user_key(self._head, made_key)
            if parts is not None:
                key, version = parts[0], int(parts[1]) if parts[1].isdecimal() else parts[1]
        for alias in list(self.aliases):
            key_changed.send_robust(
                sender=Follower,
                alias=alias,
                key=key,
                version=version,
                revision=revision,
                deleted=key is None or is_tombstone(header),
            )


forks.call_in_child(announcer.after_fork)
