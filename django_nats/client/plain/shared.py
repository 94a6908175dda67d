"""The client that a process shares, and the coroutines that run with it on a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from inspect import isawaitable
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from ...exceptions import BridgeMisuse, NatsError, OutcomeUnknown
from ...realtime import monotonic
from ..transport.asking import Asking
from ..transport.config import ConnectionConfig
from ..transport.loop import runner, thread

if TYPE_CHECKING:
    from .client import PlainClient

T = TypeVar("T")

_ALIVE_CHECK_S = 5.0
"""How often a caller that waits checks that the background thread is alive."""


class SharedClient:
    """The process's client for one configuration, opened again after it was lost."""

    def __init__(self, config: ConnectionConfig) -> None:
        """Make the object. The first call of run() connects."""
        self._config = config
        self._reset()

    def _reset(self) -> None:
        self._client: PlainClient | None = None
        self._asking = Asking(self._config)
        self._opening: asyncio.Task[PlainClient] | None = None
        """The attempt to connect that all callers wait for."""

    def run(
        self, function: Callable[..., Awaitable[T]], arguments: Iterable[Any], timeout: float | None
    ) -> T:
        """Run a coroutine function with the client and arguments, and return its result.

        Raise what it raises; TimeoutError after a number of seconds, in which case it is
        cancelled; what connect() raises; OutcomeUnknown if the connection is closed meanwhile;
        and BridgeMisuse on a background loop's thread.
        """
        if not callable(function):
            raise TypeError(f"run() needs a coroutine function, which {function!r} is not")
        if runner.is_current() or thread.is_current():
            raise BridgeMisuse(
                "run() on a background loop's thread would wait for itself: await the function"
            )
        future = runner.submit(partial(self._call, function, arguments))
        try:
            if not _is_done(future, timeout, runner.thread):
                raise TimeoutError(f"{_name(function)} has not ended within {timeout:g} seconds")
            return future.result()
        except Exception as error:
            runner.linger()
            if isinstance(error, CancelledError):
                raise OutcomeUnknown(
                    f"{_name(function)} was cancelled, by itself or as the connection was closed"
                ) from None
            raise
        finally:
            future.cancel()  # does nothing if it is done

    async def _call(self, function: Callable[..., Awaitable[T]], arguments: Iterable[Any]) -> T:
        client = await self._connected()
        awaitable = function(client, *arguments)
        if not isawaitable(awaitable):
            raise TypeError(f"run() needs a coroutine function, which {_name(function)} is not")
        result = await awaitable
        await client.confirm()
        return result

    async def _connected(self) -> PlainClient:
        if self._client is not None and self._client.usable:
            return self._client
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
            # Perhaps nobody waits for it any more when it fails, which asyncio would log.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            # A caller that is cancelled must not end what others wait for.
            return await asyncio.shield(self._opening)
        except NatsError as error:
            # Each caller gets an error of its own, as a traceback is added to it.
            raise type(error)(str(error)) from error.__cause__

    async def _open(self) -> PlainClient:
        from .client import connect

        try:
            self._client = await connect(self._config, self._asking)
        finally:
            self._opening = None
        return self._client

    async def close(self) -> None:
        """Send what was published, and close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.finish()

    def forget(self) -> None:
        """Start over. The loop has ended."""
        self._reset()

    def after_fork(self) -> None:
        """Start over in a forked child. The client is the parent's."""
        _inherited.append((self._client, self._opening))
        self._reset()


def close(clients: Collection[SharedClient], seconds: float) -> None:
    """Close clients, and end the loop on which their coroutines run. Those are cancelled.

    Wait at most a number of seconds for the clients, and as long again for the thread.
    """

    async def finish() -> None:
        await asyncio.gather(*(each.close() for each in clients), return_exceptions=True)

    def forget() -> None:
        for each in clients:
            each.forget()

    runner.stop(finish, seconds, forget)


def _is_done(future: Future[Any], timeout: float | None, running: Thread | None) -> bool:
    """Wait until a future is done. Return False after a number of seconds.

    Cancel it if ``running``, the thread of its loop, has ended.
    """
    deadline = None if timeout is None else monotonic() + timeout
    while True:
        left = _ALIVE_CHECK_S if deadline is None else deadline - monotonic()
        if wait([future], max(0, min(left, _ALIVE_CHECK_S))).done:
            return True
        # As in a child that a signal's handler has forked, or if it ignores cancellation.
        if runner.thread is not running or not runner.alive:
            return future.cancel() or future.done()
        if deadline is not None and monotonic() >= deadline:
            return False


def _name(function: object) -> str:
    while isinstance(function, partial):
        function = function.func  # without the arguments, which may be secret
    return getattr(function, "__qualname__", None) or type(function).__qualname__


# Objects of the parent, kept in a forked child, as in loop.py.
_inherited: list[object] = []
