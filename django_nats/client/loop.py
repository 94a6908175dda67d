"""The background thread whose event loop holds every connection of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, ParamSpec, TypeVar

from ..exceptions import BridgeMisuse, NotSent

LOOP_VARIABLE = "DJANGO_NATS_LOOP"
"""Environment variable: "asyncio" keeps the loop from being uvloop where that is installed."""

_LAST_WORDS = 0.5  # seconds that cancelled tasks have to end
_SILENCE = 1.0  # seconds after which a thread is told that still asks while the interpreter ends

T = TypeVar("T")
P = ParamSpec("P")


class LoopThread:
    """A daemon thread that runs one event loop, started by the first call of the process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.ident: int | None = None
        self._retired_at: float | None = None

    def after_fork(self) -> None:
        """Forget the parent's thread, which does not exist here; its loop is never touched."""
        _inherited.append((self._loop, self._thread))
        self._reset()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def retired(self) -> bool:
        """Whether the interpreter is ending: from then on no loop is started."""
        return self._retired_at is not None

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, from any thread. Raises NotSent when there is no loop.

        Raises BridgeMisuse where no loop can be started.
        """
        loop = self._loop
        if loop is None:
            loop = self._start()
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            if self.retired:
                self._end_with_the_interpreter()
            raise NotSent("The connection has just been closed") from error

    def _start(self) -> asyncio.AbstractEventLoop:
        _refuse_gevent()
        with self._starting:
            if self._loop is None and not self.retired:
                loop = _new_event_loop()
                thread = threading.Thread(
                    target=self._run, args=(loop,), name="django-nats", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    loop.close()
                    raise NotSent(f"The bridge's thread cannot be started: {error}") from error
                self._thread, self.ident = thread, thread.ident
                self._loop = loop
            started = self._loop
        return started or self._end_with_the_interpreter()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.set_default_executor(_DaemonExecutor())
        try:
            loop.run_forever()
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(_cancel_all())
                loop.close()

    def stop(
        self,
        farewell: Callable[[], Coroutine[Any, Any, None]],
        seconds: float,
        afterwards: Callable[[], None],
    ) -> None:
        """Run a last coroutine, end loop and thread, and call a function before another starts.

        Coroutine and thread have so many seconds each, and are given up after.
        """
        if self.ident == get_ident():
            raise BridgeMisuse("The bridge's own thread cannot wait for its own end")
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = self.ident = None
            if loop is not None and thread is not None and thread.is_alive():
                with contextlib.suppress(Exception):
                    asyncio.run_coroutine_threadsafe(farewell(), loop).result(seconds)
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop.stop)
                thread.join(seconds)
            afterwards()

    def retire(self) -> None:
        """Start no loop any more: the interpreter is ending."""
        self._retired_at = time.monotonic()

    def _end_with_the_interpreter(self) -> NoReturn:
        if self._retired_at is not None and get_ident() != threading.main_thread().ident:
            # A daemon thread, which the interpreter is about to end anyway: its error would only
            # appear on stderr of a program that ended in order. Unless somebody waits for it.
            time.sleep(max(0, self._retired_at + _SILENCE - time.monotonic()))
        raise NotSent("The interpreter is shutting down")


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_LAST_WORDS)


class _DaemonExecutor(ThreadPoolExecutor):
    """A daemon thread for each call: an exit waits for no name server, as it does for a pool's."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="django-nats-helper", daemon=True).start()
        return future


# Collecting what a fork inherited would close descriptors whose numbers are in use again.
_inherited: list[object] = []


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if os.environ.get(LOOP_VARIABLE) != "asyncio":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()


def import_now() -> None:
    """Import here what the first connection else imports on the loop's thread.

    For who leaves operations to a thread: a fork at that very moment would leave the child with
    modules that are locked for ever.
    """
    from . import connection  # noqa: F401

    if os.environ.get(LOOP_VARIABLE) != "asyncio":
        with contextlib.suppress(ImportError):
            import uvloop  # noqa: F401


def _refuse_gevent() -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return
    # asyncio's loop waits in select, and gevent's hub takes that for a wait that never ends.
    patched = [name for name in ("threading", "select") if monkey.is_module_patched(name)]
    if patched:
        raise BridgeMisuse(
            f"django-nats needs real threads, but gevent has patched {' and '.join(patched)}: use "
            "threaded workers (gunicorn's gthread) or ASGI, or patch with thread=False, "
            "select=False"
        )
