"""The bridge between Django's callers and the background loop: two drivers of the same steps.

``run`` drives an operation from a thread, ``arun`` from any event loop, ``iterate`` and
``aiterate`` those that yield items. What a generator may ask for is in steps.py.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import threading
import time
from _thread import LockType, allocate_lock, get_ident
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from ..exceptions import BridgeMisuse, NatsError, NotSent, OutcomeUnknown
from .bucket import BucketConfig
from .config import ConnectionConfig
from .kv import Bucket
from .loop import LoopThread
from .recent import Recent
from .session import Session
from .steps import Call, Pause, Request, Steps, Wait, next_item
from .waiter import Waiter

if TYPE_CHECKING:
    from .copies import Copies
    from .counterconfig import CounterConfig
    from .counters import CounterStream
    from .feed import Listener
    from .watch import Watcher

logger = logging.getLogger("django_nats")

T = TypeVar("T")

_thread = LoopThread()
_sessions: dict[ConnectionConfig, Session] = {}
_buckets: dict[tuple[ConnectionConfig, BucketConfig], Bucket] = {}
_counter_streams: dict[tuple[ConnectionConfig, CounterConfig], CounterStream] = {}
_recents: dict[tuple[ConnectionConfig, str], Recent] = {}
_copies: dict[tuple[ConnectionConfig, str], list[Copies]] = {}
_watchers: set[ref[Watcher]] = set()
_ALIVE_CHECK = 5.0
_FAREWELL = 1.0


def session(config: ConnectionConfig) -> Session:
    """The process's one session for a configuration; opens nothing."""
    try:
        return _sessions[config]
    except KeyError:
        return _sessions.setdefault(config, Session(config, _thread))


def bucket(connection: ConnectionConfig, config: BucketConfig) -> Bucket:
    """The process's one view of a bucket; what it has written is known to every view of it."""
    known = (connection, config)
    try:
        return _buckets[known]
    except KeyError:
        recent = _recents.setdefault((connection, config.stream), Recent())
        copies = _copies.setdefault((connection, config.stream), [])
        return _buckets.setdefault(known, Bucket(config, session(connection), recent, copies))


def add_copies(connection: ConnectionConfig, config: BucketConfig, copies: Copies) -> None:
    """Have all that this process reads and writes in a bucket told to those who keep copies."""
    _copies.setdefault((connection, config.stream), []).append(copies)


def watcher(
    connection: ConnectionConfig,
    config: BucketConfig,
    filters: Sequence[str],
    listener: Listener,
    within: float,
) -> Watcher:
    """A feed of a bucket's changes, to be started."""
    # Whoever has no use for it does not pay for importing it.
    from .watch import Watcher

    made = Watcher(session(connection), bucket(connection, config), arun, filters, listener, within)
    _watchers.add(ref(made, _watchers.discard))
    return made


def counter_stream(connection: ConnectionConfig, config: CounterConfig) -> CounterStream:
    """The process's one view of a counter stream."""
    # Whoever only caches does not pay for importing it.
    from .counters import CounterStream

    known = (connection, config)
    try:
        return _counter_streams[known]
    except KeyError:
        recent = _recents.setdefault((connection, config.stream), Recent())
        stream = CounterStream(config, session(connection), recent)
        return _counter_streams.setdefault(known, stream)


# From a thread -------------------------------------------------------------------------------


def on_loop_thread() -> bool:
    """Whether this is the loop's own thread, which can wait for nothing that happens on it."""
    return _thread.ident == get_ident()


def settle(seconds: float) -> None:
    """Wait until the loop has ended what it has in hand, such as writing to the log; so long at
    most."""
    if _thread.alive and not on_loop_thread():
        ended = threading.Event()
        with suppress(NatsError):
            _thread.call(ended.set)
            ended.wait(seconds)


def run(session: Session, steps: Steps[T]) -> T:
    """Drive an operation to its end, blocking the calling thread."""
    if on_loop_thread():
        steps.close()
        raise BridgeMisuse("A synchronous call on the bridge's own thread would wait for itself")
    send = steps.send
    answer: Any = None
    try:
        while True:
            effect = send(answer)
            try:
                answer = _perform(session, effect)
            except BaseException as error:
                send, answer = steps.throw, error
            else:
                send = steps.send
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def iterate(session: Session, steps: Steps[None]) -> Iterator[Any]:
    """Drive an iteration from a thread; closing the iterator closes the operation."""
    try:
        while (item := run(session, next_item(steps))) is not None:
            yield item.value
    finally:
        steps.close()


def _perform(session: Session, effect: Any) -> Any:
    kind = type(effect)
    if kind is Request:
        return _single(_wait(session, (effect,))[0])
    if kind is list:
        return _wait(session, effect) if effect else []
    if kind is Pause:
        return time.sleep(effect.seconds)
    if kind is Wait:
        return _wait_for(effect)
    if kind is Call:
        result = effect.function(*effect.arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("A coroutine function needs the async method (aupdate, …)")
        return result
    raise TypeError(f"An operation yielded {effect!r}")


def _wait(session: Session, requests: Sequence[Request]) -> list[Any]:
    lock = allocate_lock()
    lock.acquire()
    waiter = Waiter(requests, lock.release, blocking=True)
    try:
        session.submit(waiter)
        if not _is_released(lock):
            kind = NotSent if waiter.connection is None else OutcomeUnknown
            raise kind("The bridge's thread has ended")
    except NatsError:
        raise
    except BaseException:
        session.abandon(waiter)
        raise
    _log(waiter)
    return waiter.answers


def _wait_for(wait: Wait) -> None:
    # No Event: its lock is held for a moment, and a signal's handler that uses the cache just then
    # may be told of the change itself.
    lock = allocate_lock()
    lock.acquire()

    def wake() -> None:
        with suppress(RuntimeError):  # it has been called before
            lock.release()

    wait.tell(wake)
    if not _is_released(lock):
        raise NotSent("The bridge's thread has ended")


def _is_released(lock: LockType) -> bool:
    """Wait for it; False when the thread has ended that would have released it."""
    while not lock.acquire(timeout=_ALIVE_CHECK):
        if not _thread.alive:
            # What ends the thread, a fork in a signal's handler say, releases the lock as well.
            return lock.acquire(blocking=False)
    return True


def _log(waiter: Waiter) -> None:
    if waiter.news is not None:
        logger.warning("%s", waiter.news)


def _single(answer: Any) -> Any:
    if isinstance(answer, NatsError):
        raise answer
    return answer


# From an event loop --------------------------------------------------------------------------


async def arun(session: Session, steps: Steps[T]) -> T:
    """Drive an operation to its end from the running event loop, without blocking it."""
    send = steps.send
    answer: Any = None
    try:
        while True:
            effect = send(answer)
            try:
                answer = await _aperform(session, effect)
            except asyncio.CancelledError:
                steps.close()
                raise
            except BaseException as error:
                send, answer = steps.throw, error
            else:
                send = steps.send
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def aiterate(session: Session, steps: Steps[None]) -> AsyncIterator[Any]:
    """Drive an iteration from the running event loop."""
    try:
        while (item := await arun(session, next_item(steps))) is not None:
            yield item.value
    finally:
        steps.close()


async def _aperform(session: Session, effect: Any) -> Any:
    kind = type(effect)
    if kind is Request:
        return _single((await _await(session, (effect,)))[0])
    if kind is list:
        return await _await(session, effect) if effect else []
    if kind is Pause:
        return await asyncio.sleep(effect.seconds)
    if kind is Wait:
        return await _await_for(effect)
    if kind is Call:
        result = effect.function(*effect.arguments)
        return await result if inspect.isawaitable(result) else result
    raise TypeError(f"An operation yielded {effect!r}")


async def _await(session: Session, requests: Sequence[Request]) -> list[Any]:
    future, ring = _bell()
    waiter = Waiter(requests, ring)
    session.submit(waiter)
    try:
        await future
    except BaseException:
        session.abandon(waiter)
        raise
    _log(waiter)
    return waiter.answers


async def _await_for(wait: Wait) -> None:
    future, ring = _bell()
    wait.tell(ring)
    await future


def _bell() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """A future of the running loop, and what any thread may call to have it done."""
    loop = asyncio.get_running_loop()
    doorbell = _doorbells.last()
    if doorbell is None or doorbell.loop is not loop:
        doorbell = _Doorbell(loop)
        _doorbells.last = ref(doorbell)
    future = loop.create_future()
    return future, partial(doorbell.ring, future)


class _Doorbell:
    """Wakes one event loop for all the answers that came in meanwhile, in one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._done: deque[asyncio.Future[None]] = deque()
        self._ringing = False

    def ring(self, future: asyncio.Future[None]) -> None:
        self._done.append(future)
        if not self._ringing:
            try:
                self._ringing = True
                self.loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                pass  # the caller's loop has been closed: nobody is left to be woken
            except BaseException:
                self._ringing = False  # a signal's: the next to ring must not rely on this
                raise

    def _answer(self) -> None:
        self._ringing = False
        while self._done:
            future = self._done.popleft()
            if not future.done():
                future.set_result(None)


class _Doorbells(threading.local):
    """The bell of the loop that last ran on a thread.

    async_to_sync makes a loop for every call, and none may stay for this: a bell, which knows its
    loop, belongs to those who are still to ring it and to the loop it has rung.
    """

    last: Callable[[], _Doorbell | None] = staticmethod(lambda: None)


_doorbells = _Doorbells()


# The process ---------------------------------------------------------------------------------


def _living() -> list[Watcher]:
    # A copy, made in one step: other threads go on making watchers.
    return [watcher for each in _watchers.copy() if (watcher := each()) is not None]


def _after_fork() -> None:
    for session in _sessions.values():
        session.after_fork()
    for stream in _counter_streams.values():
        stream.after_fork()
    for watcher in _living():
        watcher.after_fork()
    for each in _copies.values():
        for copies in each:
            copies.after_fork()
    _thread.after_fork()


def close() -> None:
    """Send what is queued and close every connection; the next operation opens them anew."""

    sessions = list(_sessions.values())

    async def farewell() -> None:
        await asyncio.gather(*(each.close() for each in sessions), return_exceptions=True)

    def forget() -> None:
        for each in sessions:
            each.forget()
        # At exit only daemon threads still wait: they end with the interpreter, not by errors.
        for watcher in () if _thread.retired else _living():
            watcher.forget()

    _thread.stop(farewell, _FAREWELL, forget)


def _at_exit() -> None:
    _thread.retire()
    close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
