"""Reading a bucket: entries by keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .. import keys as key_names
from ..exceptions import InvalidKey
from .bucket import BucketConfig
from .clock import Timed
from .entry import Entry, entry_of
from .opening import Server
from .recent import Recent
from .steps import Steps
from .wire import Message

logger = logging.getLogger("django_nats")

MAX_KEY_BYTES = 8192


class Reading(Timed[BucketConfig]):
    """The part of a bucket that reads, and knows what this process has written."""

    def __init__(self, config: BucketConfig, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._subject = f"$KV.{config.name}."
        self._said_full = False
        self.max_message = config.max_value_size

    def _learn(self, document: Mapping[str, Any]) -> None:
        super()._learn(document)
        limit = document["config"].get("max_msg_size", -1)
        self.max_message = limit if limit > 0 else self.config.max_value_size

    def get(self, key: str) -> Steps[Entry | None]:
        """The value of a key, or None. One round trip."""
        message = yield from self._last(self._subject + self._encode(key))
        return None if message is None else self._entry(message)

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """The values of those keys that have one. One round trip up to MAX_BATCH keys."""
        wanted = {self._subject + self._encode(key): key for key in keys}
        found = yield from self._last_of(list(wanted))
        entries = {}
        now = self.now_at_least
        for subject, message in found.items():
            entry = None if message is None else entry_of(message, now)
            if entry is not None:
                entries[wanted[subject]] = entry
        return entries

    def _entry(self, message: Message) -> Entry | None:
        """A message as a value; None when it is a tombstone or has expired."""
        return entry_of(message, self.now_at_least)

    def _remember(self, subject: bytes, sequence: int) -> None:
        """Note what this process has written, as the bucket acknowledged it."""
        if self._said_full:
            self._said_full = False
            logger.warning("The bucket %s takes values again", self.config.name)
        super()._remember(subject, sequence)

    @property
    def _from_leader(self) -> bool:
        return self.config.reads == "leader"

    def _encode(self, key: str) -> str:
        encoded = key_names.encode(key)
        if len(encoded) > 1000 and len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidKey(
                f"The key {key[:60]!r}… has {len(key.encode())} bytes; at most {MAX_KEY_BYTES} "
                f"can be stored. Use a digest of it."
            )
        return encoded
