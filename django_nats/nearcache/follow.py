"""What a near cache does with what its feed tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from .. import keys
from ..client.copies import Copies
from ..client.listing import key_of
from ..client.wire import is_tombstone
from ..exceptions import NatsError
from ..signals import key_changed
from .announce import announcer
from .shape import user_key


class Follower:
    """Passes a feed on to the copies, and to the receivers of key_changed."""

    def __init__(self, copies: Copies, bucket: str, head: str | None) -> None:
        self.aliases: dict[str, None] = {}
        self._copies = copies
        self._bucket = bucket
        self._head = head
        self._clear = f"$KV.{bucket}.{keys.CLEAR}"

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        return {"deliver_policy": "new"}

    def opened(self) -> None:
        self._copies.opened()
        # Now, and not when the last feed ended: who reads at once reads what is told from here on.
        self._announce(None, 0, b"")

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        if subject == self._clear:
            self._copies.cleared(revision)
            self._announce(None, revision, header)
        else:
            self._copies.changed(subject, revision)
            self._announce(subject, revision, header)

    def proven(self, moment: float) -> None:
        self._copies.proven(moment)

    def shut(self) -> None:
        self._copies.shut()

    def refused(self, error: NatsError) -> None:
        """Nothing: every read goes to the server, and the watcher has said so."""

    def ended(self, error: NatsError) -> None:
        """Nothing: the next read starts it again."""

    def _announce(self, subject: str | None, revision: int, header: bytes) -> None:
        if key_changed.receivers:
            announcer.put(partial(self._send, subject, revision, header), self._send_gap)

    def _send_gap(self) -> None:
        self._send(None, 0, b"")

    def _send(self, subject: str | None, revision: int, header: bytes) -> None:
        key: str | None = None
        version: int | str | None = None
        if subject is not None:
            made = key_of(self._bucket, subject.encode(), header)
            if made is None or not self._copies.covers(made):
                return
            key = made
            found = None if self._head is None else user_key(self._head, made)
            if found is not None:
                key, version = found[0], int(found[1]) if found[1].isdecimal() else found[1]
        for alias in list(self.aliases):
            key_changed.send_robust(
                sender=Follower,
                alias=alias,
                key=key,
                version=version,
                revision=revision,
                deleted=key is None or is_tombstone(header),
            )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=announcer.after_fork)
