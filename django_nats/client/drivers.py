"""The two drivers of an operation's steps.

``run`` drives an operation from a thread, and ``arun`` from any event loop. ``iterate`` and
``aiterate`` drive operations that yield items. protocol/steps.py says what steps may ask for.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, TypeVar
from weakref import ref

from asgiref.sync import sync_to_async

from ..exceptions import BridgeMisuse, NatsError, NotSent, OutcomeUnknown
from ..realtime import monotonic
from .protocol.steps import (
    Call,
    Expired,
    ItemSteps,
    Pause,
    Publications,
    Request,
    Steps,
    Wait,
    Within,
    next_item,
)
from .transport.loop import thread
from .transport.session import Session
from .transport.waiter import Waiter

logger = logging.getLogger("django_nats")

T = TypeVar("T")

_ALIVE_CHECK_S = 5.0
"""How often a caller that waits checks that the background thread is alive."""
_SAME_CLOCK_S = 1.0
"""Two clocks are taken for the same if their readings differ by less."""


# From a thread -------------------------------------------------------------------------------


def on_loop_thread() -> bool:
    """Return True on the background loop's thread, which must not wait for its own work."""
    return thread.is_current()


def run(session: Session, steps: Steps[T]) -> T:
    """Drive an operation to its end, blocking the calling thread, and return its result.

    Raise what the operation raises, and BridgeMisuse on the background loop's thread.
    """
    if on_loop_thread():
        steps.close()
        raise BridgeMisuse(
            "A synchronous call on the background loop's thread would wait for itself"
        )
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


def iterate(session: Session, steps: ItemSteps[T]) -> Generator[T, None, None]:
    """Drive an iteration from a thread. Closing the iterator closes the operation."""
    try:
        while (item := run(session, next_item(steps))) is not None:
            yield item.value
    finally:
        steps.close()


def _perform(session: Session, effect: Any, deadline: float = inf) -> Any:
    kind = type(effect)
    if kind is Request:
        return _reply_or_raise(_wait(session, (effect,), deadline)[0])
    if kind is list or kind is Publications:
        return _wait(session, effect, deadline) if effect else []
    if kind is Pause:
        return time.sleep(_cut(effect.seconds, deadline))
    if kind is Wait:
        return _wait_for(effect)
    if kind is Call:
        result = effect.function(*effect.arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                "A coroutine function needs the async method (aupdate, ahit, …), or an async view"
            )
        return result
    if kind is Within:
        return _perform(session, effect.effect, effect.deadline)
    raise TypeError(f"An operation yielded {effect!r}")


def _cut(seconds: float, deadline: float) -> float:
    """Return the seconds of a pause, or those that are left until a deadline if they are fewer.

    Raise Expired if none are left.
    """
    if deadline == inf:
        return seconds
    left = deadline - monotonic()
    if left <= 0:
        raise Expired
    return min(seconds, left)


def _wait(session: Session, requests: Sequence[Request], deadline: float = inf) -> list[Any]:
    _cut(0, deadline)
    lock = allocate_lock()
    lock.acquire()
    # Only the loop reads for a caller with a deadline, which must not wait in the socket itself.
    waiter = Waiter(requests, lock.release, blocking=deadline == inf)
    try:
        session.submit(waiter)
        if not _is_released(lock, deadline):
            session.abandon(waiter)  # if it is queued, the next loop must not send it
            _cut(0, deadline)
            kind = NotSent if waiter.connection is None else OutcomeUnknown
            raise kind("The background loop has ended")
    except (NatsError, Expired):
        raise
    except BaseException:
        session.abandon(waiter)
        raise
    _log_warning(waiter)
    return waiter.answers


def _wait_for(wait: Wait) -> None:
    # A bare lock, not an Event: an Event takes a lock of its own for a moment, and a signal's
    # handler that runs in that moment may use the cache and so call the callback itself.
    lock = allocate_lock()
    lock.acquire()

    def wake() -> None:
        with suppress(RuntimeError):  # the callback has been called before
            lock.release()

    wait.register(wake)
    if not _is_released(lock):
        raise NotSent("The background loop has ended")


def _is_released(lock: LockType, deadline: float = inf) -> bool:
    """Wait until another thread releases a lock.

    Return False if the background thread has ended, which would have released it, or if the
    deadline has passed.
    """
    while not lock.acquire(timeout=max(0, min(_ALIVE_CHECK_S, deadline - monotonic()))):
        if not thread.alive or monotonic() >= deadline:
            # What ended the thread, such as a fork in a signal's handler, releases the lock too.
            return lock.acquire(blocking=False)
    return True


def _log_warning(waiter: Waiter) -> None:
    if waiter.warning is not None:
        logger.warning("%s", waiter.warning)


def _reply_or_raise(answer: Any) -> Any:
    if isinstance(answer, NatsError):
        raise answer
    return answer


# From an event loop --------------------------------------------------------------------------


async def arun(session: Session, steps: Steps[T]) -> T:
    """Drive an operation to its end from the running event loop, and return its result.

    The loop is not blocked. Raise what the operation raises. If the task is cancelled, close the
    operation.
    """
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


async def aiterate(session: Session, steps: ItemSteps[T]) -> AsyncIterator[T]:
    """Drive an iteration from the running event loop. Closing it closes the operation."""
    try:
        while (item := await arun(session, next_item(steps))) is not None:
            yield item.value
    finally:
        steps.close()


async def _aperform(session: Session, effect: Any, deadline: float = inf) -> Any:
    kind = type(effect)
    if kind is Request:
        return _reply_or_raise((await _await(session, (effect,), deadline))[0])
    if kind is list or kind is Publications:
        return await _await(session, effect, deadline) if effect else []
    if kind is Pause:
        return await _sleep(_cut(effect.seconds, deadline))
    if kind is Wait:
        return await _await_for(effect)
    if kind is Call:
        function = sync_to_async(effect.function) if effect.blocks else effect.function
        result = function(*effect.arguments)
        return await result if inspect.isawaitable(result) else result
    if kind is Within:
        return await _aperform(session, effect.effect, effect.deadline)
    raise TypeError(f"An operation yielded {effect!r}")


async def _await(session: Session, requests: Sequence[Request], deadline: float = inf) -> list[Any]:
    _cut(0, deadline)
    future, resolve = _threadsafe_future()
    waiter = Waiter(requests, resolve)
    session.submit(waiter)
    expired: list[bool] = []
    timer = None
    if deadline != inf:

        def expire() -> None:
            expired.append(True)
            resolve()

        timer = asyncio.get_running_loop().call_later(deadline - monotonic(), expire)
    try:
        await future
        if expired:
            raise Expired
    except BaseException:
        session.abandon(waiter)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    _log_warning(waiter)
    return waiter.answers


async def _sleep(seconds: float) -> None:
    """Pause in real time, even where a test has frozen the clock of the running loop."""
    loop = asyncio.get_running_loop()
    if abs(loop.time() - monotonic()) < _SAME_CLOCK_S:
        return await asyncio.sleep(seconds)
    future, resolve = _threadsafe_future()
    with suppress(NatsError):
        thread.call(lambda: asyncio.get_running_loop().call_later(seconds, resolve))
    # The background loop's timer is lost if that loop ends. This one is right for a loop whose
    # clock runs, but from another starting point.
    timer = loop.call_later(seconds, resolve)
    try:
        await future
    finally:
        timer.cancel()


async def _await_for(wait: Wait) -> None:
    future, resolve = _threadsafe_future()
    wait.register(resolve)
    await future


def _threadsafe_future() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """Return a future of the running loop, and a function that resolves it from any thread."""
    loop = asyncio.get_running_loop()
    waker = None if _wakers.last is None else _wakers.last()
    if waker is None or waker.loop is not loop:
        waker = _LoopWaker(loop)
        _wakers.last = ref(waker)
    future = loop.create_future()
    return future, partial(waker.resolve, future)


class _LoopWaker:
    """Resolves futures of one event loop from other threads.

    One call to the loop resolves all futures whose answers have come in since the last.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answered: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    def resolve(self, future: asyncio.Future[None]) -> None:
        self._answered.append(future)
        if not self._scheduled:
            try:
                self._scheduled = True
                self.loop.call_soon_threadsafe(self._resolve_all)
            except RuntimeError:
                pass  # the caller's loop has been closed, so that no caller is left
            except BaseException:
                # A signal's handler raised: the next answer must schedule the call.
                self._scheduled = False
                raise

    def _resolve_all(self) -> None:
        self._scheduled = False
        while self._answered:
            future = self._answered.popleft()
            if not future.done():
                future.set_result(None)


class _LoopWakers(threading.local):
    """The waker of the loop that last ran on this thread.

    The reference is weak, since async_to_sync makes a loop for every call, and a waker keeps its
    loop alive. The functions that are still to be called, and the loop itself once they have
    been, keep the waker.
    """

    last: ref[_LoopWaker] | None = None


_wakers = _LoopWakers()
