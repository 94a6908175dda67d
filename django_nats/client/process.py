"""The objects that a process has one of: sessions, buckets, counter streams, shared clients.

They are shared by all threads and event loops. What happens to them when the process forks or
ends is here, too.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import ref

from ..exceptions import NatsError
from .drivers import arun, on_loop_thread
from .kv.bucket import Bucket
from .kv.config import BucketConfig
from .streams.recent_writes import Recent
from .transport import forks
from .transport.config import ConnectionConfig
from .transport.loop import runner, thread
from .transport.session import Session

if TYPE_CHECKING:
    from .counters.config import CounterConfig
    from .counters.stream import CounterStream
    from .feed.feed import Listener
    from .feed.watcher import Watcher
    from .kv.copies import Copies
    from .plain.shared import SharedClient

K = TypeVar("K")
V = TypeVar("V")

_CLOSE_S = 1.0
"""How long close() waits for connections to close, and then for their thread to end."""


class _OnePerKey(dict[K, V]):
    """A mapping that makes the value of a key when it is first asked for.

    Two threads may both make the value of a new key. Only one value is stored, in one step, and
    both threads get it.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> V:
        return self.setdefault(key, self._make(key))


_StreamName: TypeAlias = "tuple[ConnectionConfig, str, str]"
"""The stream's name is its own only within one JetStream API."""


def _make_session(config: ConnectionConfig) -> Session:
    return Session(config, thread)


def _make_bucket(key: tuple[ConnectionConfig, BucketConfig]) -> Bucket:
    connection, config = key
    stream = connection, config.api_prefix, config.stream
    return Bucket(config, session(connection), _recents[stream], _copies[stream])


def _make_counter_stream(key: tuple[ConnectionConfig, CounterConfig]) -> CounterStream:
    # Imported here, so that a process that only caches does not pay for it.
    from .counters.stream import CounterStream

    connection, config = key
    recent = _recents[connection, config.api_prefix, config.stream]
    return CounterStream(config, session(connection), recent)


def _make_shared_client(config: ConnectionConfig) -> SharedClient:
    # Imported here, so that a process that calls no coroutines with it does not pay for it.
    from .plain.shared import SharedClient

    return SharedClient(config)


def _make_recent(_: _StreamName) -> Recent:
    return Recent()


def _make_copies(_: _StreamName) -> list[Copies]:
    return []


_sessions = _OnePerKey(_make_session)
_buckets = _OnePerKey(_make_bucket)
_counter_streams = _OnePerKey(_make_counter_stream)
_shared_clients = _OnePerKey(_make_shared_client)
# Two aliases may see one stream by two configurations. They share what it has been written.
_recents = _OnePerKey(_make_recent)
_copies = _OnePerKey(_make_copies)
_watchers: set[ref[Watcher]] = set()


def session(config: ConnectionConfig) -> Session:
    """Return the process's session for a configuration. It connects at its first operation."""
    found = _sessions[config]
    found.entries[config.entry] = config.login
    return found


def bucket(connection: ConnectionConfig, config: BucketConfig) -> Bucket:
    """Return the process's object for a bucket.

    Objects for the same bucket share the record of what the process has written, and the copies.
    """
    return _buckets[connection, config]


def add_copies(connection: ConnectionConfig, config: BucketConfig, copies: Copies) -> None:
    """Announce all that this process reads and writes in a bucket to a store of copies."""
    _copies[connection, config.api_prefix, config.stream].append(copies)


def watcher(
    connection: ConnectionConfig,
    config: BucketConfig,
    filters: Sequence[str],
    listener: Listener,
    within: float,
) -> Watcher:
    """Return a new watcher of a bucket's changes, which the caller starts.

    ``filters`` are the subjects to follow. ``within`` is in seconds: a feed that cannot prove
    itself current for that long is reopened.
    """
    # Imported here, so that a process that follows no changes does not pay for it.
    from .feed.watcher import Watcher

    made = Watcher(session(connection), bucket(connection, config), arun, filters, listener, within)
    _watchers.add(ref(made, _watchers.discard))
    return made


def counter_stream(connection: ConnectionConfig, config: CounterConfig) -> CounterStream:
    """Return the process's object for a counter stream."""
    return _counter_streams[connection, config]


def counter_streams(connection: ConnectionConfig) -> list[CounterStream]:
    """Return the process's objects for the counter streams of a connection's server."""
    return [stream for (each, _), stream in [*_counter_streams.items()] if each == connection]


def shared_client(config: ConnectionConfig) -> SharedClient:
    """Return the process's nats-py client for a configuration, for the coroutines of users."""
    return _shared_clients[config]


def settle(seconds: float) -> None:
    """Wait until the loop has done what it has queued, such as log records.

    Wait at most a number of seconds. Return at once if no loop runs, and on the loop's thread.
    """
    if thread.alive and not on_loop_thread():
        ended = threading.Event()
        with suppress(NatsError):
            thread.call(ended.set)
            ended.wait(seconds)


def _living_watchers() -> list[Watcher]:
    # From a copy, which is made in one step: other threads may be adding watchers.
    return [watcher for each in _watchers.copy() if (watcher := each()) is not None]


def _after_fork() -> None:
    for session in _sessions.values():
        session.after_fork()
    for stream in _counter_streams.values():
        stream.after_fork()
    for client in _shared_clients.values():
        client.after_fork()
    for watcher in _living_watchers():
        watcher.after_fork()
    for each in _copies.values():
        for copies in each:
            copies.after_fork()
    thread.after_fork()
    runner.after_fork()


def close() -> None:
    """Send what is queued and close every connection. The next operation connects again.

    Raise BridgeMisuse on a background loop's thread.
    """
    if _shared_clients:
        from .plain import shared

        # First, as the coroutines that run with these clients may use a cache.
        shared.close(_shared_clients, _CLOSE_S)
    sessions = list(_sessions.values())

    async def close_sessions() -> None:
        await asyncio.gather(*(each.close() for each in sessions), return_exceptions=True)

    def forget() -> None:
        # Again all sessions: some may have been made since.
        for each in list(_sessions.values()):
            each.forget()
        # At exit, only daemon threads still wait. They end with the interpreter, without errors.
        for watcher in () if thread.retired else _living_watchers():
            watcher.forget()

    thread.stop(close_sessions, _CLOSE_S, forget)


def _close_at_exit() -> None:
    runner.retire()
    thread.retire()
    close()


forks.call_in_child(_after_fork)
atexit.register(_close_at_exit)
