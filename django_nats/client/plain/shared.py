"""The client that a process shares, and the coroutines that run with it on a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from ...exceptions import BridgeMisuse, NatsError, NotSent, OutcomeUnknown
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
        self._closed = False

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
        future, is_running = runner.submit(partial(self._call, function, arguments))
        try:
            if not _is_done(future, timeout, is_running):
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
            if is_running():  # otherwise that would need the loop, which is closed
                future.cancel()  # does nothing if it is done

    async def _call(self, function: Callable[..., Awaitable[T]], arguments: Iterable[Any]) -> T:
        # The caller may have given up when this fails, which asyncio would log.
        _take_error(asyncio.current_task())
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
            _take_error(self._opening)  # so may all of its callers
        try:
            # A caller that is cancelled must not end what others wait for.
            return await asyncio.shield(self._opening)
        except NatsError as error:
            # Each caller gets an error of its own, as a traceback is added to it.
            raise type(error)(str(error)) from error.__cause__

    async def _open(self) -> PlainClient:
        from .client import connect

        try:
            client = await connect(self._config, self._asking)
        finally:
            self._opening = None
        if self._closed:
            client.abort()  # close() has not seen it
            raise NotSent("The connection has just been closed")
        self._client = client
        return client

    async def close(self) -> None:
        """Send what was published, and close the connection. The loop is about to end."""
        self._closed = True
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


def close(clients: Mapping[Any, SharedClient], seconds: float) -> None:
    """Close clients, and end the loop on which their coroutines run. Those are cancelled.

    Wait at most a number of seconds for the clients, and as long again for the thread.
    """

    async def finish() -> None:
        all_of_them = list(clients.values())
        await asyncio.gather(*(each.close() for each in all_of_them), return_exceptions=True)

    def forget() -> None:
        for each in list(clients.values()):  # some may have been made since
            each.forget()

    runner.stop(finish, seconds, forget)


def _is_done(future: Future[Any], timeout: float | None, is_running: Callable[[], bool]) -> bool:
    """Wait until a future is done. Return False after a number of seconds.

    Raise CancelledError if its loop has ended, which ``is_running`` returns.
    """
    deadline = None if timeout is None else monotonic() + timeout
    while True:
        left = _ALIVE_CHECK_S if deadline is None else deadline - monotonic()
        if wait([future], max(0, min(left, _ALIVE_CHECK_S))).done:
            return True
        # As in a child that a signal's handler has forked, or if it ignores cancellation.
        if not is_running():
            if future.done():
                return True
            raise CancelledError
        if deadline is not None and monotonic() >= deadline:
            return False


def _take_error(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())


def _name(function: object) -> str:
    while isinstance(function, partial):
        function = function.func  # without the arguments, which may be secret
    return getattr(function, "__qualname__", None) or type(function).__qualname__


# Objects of the parent, kept in a forked child, as in loop.py.
_inherited: list[object] = []
