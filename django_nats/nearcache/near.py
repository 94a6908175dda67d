"""The near cache of a bucket: copies of its values, and the feed that keeps them current."""

from __future__ import annotations

import threading
from contextlib import suppress

from ..client import drivers, process
from ..client.feed.watcher import WHOLE
from ..client.kv.config import BucketConfig
from ..client.kv.copies import Copies, Copy
from ..client.transport import forks
from ..client.transport.config import ConnectionConfig
from ..conf.nearcache import NearCacheConfig
from ..exceptions import NatsError
from ..realtime import monotonic
from .follow import Follower
from .patterns import covering, filters

_STOP_TIMEOUT_S = 1.0


class NearCache:
    """The copies that this process holds of a bucket, shared by threads, event loops and aliases.

    ``entries`` and ``bytes`` describe the present moment. ``hits``, ``misses`` and ``flushes`` are
    counted from the start of the process.
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
        """The subjects on which the feed receives changes."""
        self._watcher = process.watcher(
            connection, bucket, self.subjects, self._follower, config.bounds.max_stale
        )
        process.add_copies(connection, bucket, self._copies)

    def __repr__(self) -> str:
        return (
            f"<NearCache of the bucket {self._bucket}: {self.entries} entries, {self.bytes} B, "
            f"{self.hits} hits, {self.misses} misses, {self.flushes} flushes; feed {self.state}>"
        )

    @property
    def entries(self) -> int:
        """Return the number of copies."""
        return len(self._copies)

    @property
    def bytes(self) -> int:
        """Return an estimate of the memory that the copies take, in bytes."""
        return self._copies.bytes

    @property
    def hits(self) -> int:
        """Return the number of reads that found a copy."""
        return self._copies.hits

    @property
    def misses(self) -> int:
        """Return the number of reads of covered keys that went to the server."""
        return self._copies.misses

    @property
    def flushes(self) -> int:
        """Return how often all copies were dropped because the feed may have missed a change."""
        return self._copies.flushes

    @property
    def state(self) -> str:
        """Return "whole" while copies are served, otherwise the reason why they are not."""
        state = self._watcher.state
        if state == WHOLE and monotonic() >= self._copies.fresh_until:
            return "not proven current"
        return state

    @property
    def lag(self) -> float:
        """Return the seconds between the storing of the last change and its arrival here."""
        return self._watcher.lag

    def find(self, key: str) -> Copy | None:
        """Return the copy of a made key, or None if there is none that may be served now."""
        return self._copies.find(key)

    def start(self) -> None:
        """Open the feed in the background, unless it is open. Copies are made from then on."""
        if not self._watcher.started:
            with suppress(NatsError):  # the read that started it raises the same error
                self._watcher.start()

    def stop(self) -> None:
        """Close the feed and drop the copies, until the next read. Return within a second."""
        ended = threading.Event()
        self._watcher.stop(ended.set)
        if not drivers.on_loop_thread():
            ended.wait(_STOP_TIMEOUT_S)

    def belongs_to(self, alias: str) -> None:
        """Send key_changed for an alias of CACHES, too, which has this near cache."""
        self._follower.aliases[alias] = None


_near_caches: dict[tuple[object, ...], NearCache] = {}
# Reentrant: a signal handler or a finalizer may create a cache while this thread holds it.
_creation_lock = threading.RLock()


def near_cache(
    alias: str,
    connection: ConnectionConfig,
    bucket: BucketConfig,
    config: NearCacheConfig,
    head: str | None,
) -> NearCache:
    """Return the near cache of a bucket with these settings: the process has one of each."""
    settings = (connection, bucket, config, head)
    if (found := _near_caches.get(settings)) is None:
        # Without the lock a second one could be created, and its copies would be updated for the
        # rest of the process's life, though no cache reads them.
        with _creation_lock:
            if (found := _near_caches.get(settings)) is None:
                found = _near_caches[settings] = NearCache(connection, bucket, config, head)
    found.belongs_to(alias)
    return found


def _after_fork() -> None:
    global _creation_lock
    _creation_lock = threading.RLock()  # another thread of the parent may have held it


forks.call_in_child(_after_fork)
