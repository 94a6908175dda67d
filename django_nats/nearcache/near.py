"""A near cache: copies, and the feed that keeps them coherent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..client import bridge
from ..client.bucket import BucketConfig
from ..client.config import ConnectionConfig
from ..client.copies import Copies, Copy
from ..client.watch import WHOLE
from ..conf.nearcache import NearCacheConfig
from ..exceptions import NatsError
from .follow import Follower
from .shape import covering, filters

_LAST_WORDS = 1.0  # seconds that a feed has to end


class NearCache:
    """What this process holds of a bucket, shared by threads, loops and aliases.

    ``entries`` and ``bytes`` are of this moment; ``hits``, ``misses`` and ``flushes`` are counted
    since the process began.
    """

    def __init__(
        self,
        connection: ConnectionConfig,
        bucket: BucketConfig,
        config: NearCacheConfig,
        head: str | None,
    ) -> None:
        self.bounds = config.bounds
        self._bucket = bucket.name
        self._copies = Copies(config.bounds, covering(head, config.keys))
        self._follower = Follower(self._copies, bucket.name, head)
        self.subjects = filters(bucket.name, head, config.keys)
        """The subjects of the changes that are followed."""
        self._watcher = bridge.watcher(
            connection, bucket, self.subjects, self._follower, config.bounds.max_stale
        )
        bridge.add_copies(connection, bucket, self._copies)
        self.find: Callable[[str], Copy | None] = self._copies.find
        """The copy of a made key, if it may be served now."""

    def __repr__(self) -> str:
        return (
            f"<NearCache of the bucket {self._bucket}: {self.entries} entries, {self.bytes} B, "
            f"{self.hits} hits, {self.misses} misses, {self.flushes} flushes; feed {self.state}>"
        )

    @property
    def entries(self) -> int:
        return len(self._copies)

    @property
    def bytes(self) -> int:
        """Bytes of memory that the copies take, estimated."""
        return self._copies.bytes

    @property
    def hits(self) -> int:
        return self._copies.hits

    @property
    def misses(self) -> int:
        """Reads that went to the server, of keys that are to be copied."""
        return self._copies.misses

    @property
    def flushes(self) -> int:
        """How often copies were dropped because the feed might have missed something."""
        return self._copies.flushes

    @property
    def state(self) -> str:
        """Of the feed: "whole", while copies are served; otherwise what is the matter."""
        state = self._watcher.state
        if state == WHOLE and monotonic() >= self._copies.fresh_until:
            return "not proven current"
        return state

    @property
    def lag(self) -> float:
        """Seconds that the last change of a key took to get here."""
        return self._watcher.lag

    def start(self) -> None:
        """Open the feed in the background, unless it is open; copies are made from then on."""
        if not self._watcher.started:
            with suppress(NatsError):  # the operation that wants it meets the same
                self._watcher.start()

    def stop(self) -> None:
        """End the feed and drop the copies, until the next read. Returns within a second."""
        ended = threading.Event()
        self._watcher.stop(ended.set)
        if not bridge.on_loop_thread():
            ended.wait(_LAST_WORDS)

    def belongs_to(self, alias: str) -> None:
        """An alias of CACHES has this near cache: key_changed is sent for it."""
        self._follower.aliases[alias] = None


_known: dict[tuple[object, ...], NearCache] = {}
# Reentrant: a signal's handler, or a finalizer, may make a cache at any point.
_making = threading.RLock()


def near_cache(
    alias: str,
    connection: ConnectionConfig,
    bucket: BucketConfig,
    config: NearCacheConfig,
    head: str | None,
) -> NearCache:
    """The process's one near cache of a bucket with these settings."""
    known = (connection, bucket, config, head)
    if (found := _known.get(known)) is None:
        with _making:  # a second one's copies would be told of everything, for ever and for nobody
            if (found := _known.get(known)) is None:
                found = _known[known] = NearCache(connection, bucket, config, head)
    found.belongs_to(alias)
    return found


def _after_fork() -> None:
    global _making
    _making = threading.RLock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
