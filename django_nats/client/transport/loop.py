"""The background threads with an event loop: one holds the connections, one runs coroutines."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import BuiltinFunctionType
from typing import Any, NoReturn, ParamSpec, TypeVar

from ...exceptions import BridgeMisuse, NatsError, NotSent, ThreadRefused
from ...realtime import monotonic
from . import forks

logger = logging.getLogger("django_nats")

LOOP_VARIABLE = "DJANGO_NATS_LOOP"
"""Environment variable. With "asyncio", the loop is not uvloop's even if that is installed."""

_CANCEL_GRACE_S = 0.5
"""How long cancelled tasks have to end."""
_LINGER_S = 1.0
"""How long a call of a daemon thread is held up while the interpreter ends, before it fails."""

T = TypeVar("T")
P = ParamSpec("P")


class LoopThread:
    """A daemon thread that runs one event loop, started by the first call of the process."""

    def __init__(self, name: str = "django-nats") -> None:
        """Make the object. The thread starts with the first call."""
        self._name = name
        self._reset()

    def _reset(self) -> None:
        # A lock that knows its owner, as a signal's handler must not wait for the call that it
        # has interrupted.
        self._changing = threading.RLock()
        """Held by the thread that starts or stops the loop, until it has done so."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.ident: int | None = None
        """Identity of the thread, or None if there is none."""
        self._retired_at: float | None = None
        self._failure_logged = False

    def after_fork(self) -> None:
        """Forget the parent's thread, which does not exist in a child. Leave its loop alone."""
        _inherited.append((self._loop, self._thread))
        self._reset()

    @property
    def alive(self) -> bool:
        """Return True if the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def retired(self) -> bool:
        """Return True while the interpreter is ending. No loop is started any more."""
        return self._retired_at is not None

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, from any thread. Start the loop if there is none.

        While the loop ends, a function of its own thread still runs on it, and other threads wait
        for the next loop. Raise NotSent if the loop has just been closed or cannot be started,
        and BridgeMisuse if threads have been replaced.
        """
        loop = self._loop
        if loop is None:
            loop = self._ending_or_next()
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            self._refuse_as_closed(error)

    def submit(
        self, function: Callable[[], Coroutine[Any, Any, T]]
    ) -> tuple[Future[T], Callable[[], bool]]:
        """Run a coroutine function on the loop, from another thread. Raise what call() raises.

        Return its future, and a function that returns whether its loop is running. If the future
        is cancelled, so is the coroutine. If the loop ends, the coroutine is cancelled, or never
        begins.
        """
        loop = self._loop or self._ending_or_next()
        coroutine = function()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as error:
            coroutine.close()
            self._refuse_as_closed(error)
        return future, partial(self._runs, loop)

    def _runs(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self.alive and loop in (self._loop, self._ending)

    def _ending_or_next(self) -> asyncio.AbstractEventLoop:
        # While the loop ends, its thread must not wait for its own end.
        ending = self._ending if self.is_current() else None
        return self._start() if ending is None else ending

    def _refuse_as_closed(self, error: RuntimeError) -> NoReturn:
        if self.retired:
            self._end_with_the_interpreter()
        raise NotSent("The connection has just been closed") from error

    def is_current(self) -> bool:
        """Return True on the loop's own thread, which must not wait for its own work."""
        return self.ident == get_ident()

    def _refuse_a_handler(self) -> None:
        if self._changing._is_owned():  # type: ignore[attr-defined]
            # A signal's handler, or a finalizer. The call that it has interrupted has the lock.
            raise NotSent("A signal's handler has interrupted the loop's start or end")

    def _start(self) -> asyncio.AbstractEventLoop:
        refuse_replaced_threads()
        self._refuse_a_handler()
        forks.watch_uwsgi()
        try:
            with self._changing:
                if self._loop is None and not self.retired:
                    self._loop = self._start_thread()
                started = self._loop
        except NotSent as error:
            # It is logged, as with FAIL_OPEN the caller gets no error. It is logged without the
            # lock, as a log handler may use the cache.
            if not self._failure_logged:
                self._failure_logged = True
                logger.error("%s", error)
            raise
        return started or self._end_with_the_interpreter()

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        try:
            loop = _new_event_loop()
        except (OSError, RuntimeError) as error:  # such as: too many open files
            raise NotSent(f"The background loop cannot be created: {error}") from error
        try:
            thread = _daemon(self._name, self._run, loop)
            thread.start()
        except RuntimeError as error:
            loop.close()
            if isinstance(error, NatsError):
                raise
            raise NotSent(f"The background thread cannot be started: {error}") from error
        self._thread, self.ident = thread, thread.ident
        self._failure_logged = False
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.set_default_executor(_DaemonExecutor())
        try:
            self._run_until_stopped(loop)
        finally:
            with contextlib.suppress(Exception):
                until = monotonic() + _CANCEL_GRACE_S
                loop.run_until_complete(_cancel_all(until))
                # In the loop's last iteration, a callback may have started a task.
                while asyncio.all_tasks(loop) and monotonic() < until:
                    loop.run_until_complete(_cancel_all(until))
                loop.close()

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # A coroutine of the user has raised it, whose caller gets it. asyncio ends the
                # loop as well, which others use.
                if self._loop is loop:
                    continue
            return

    def stop(
        self,
        finish: Callable[[], Coroutine[Any, Any, None]],
        seconds: float,
        afterwards: Callable[[], None],
    ) -> None:
        """Run a last coroutine, end the loop and the thread, and then call ``afterwards``.

        No new loop starts before ``afterwards`` has returned. Wait at most ``seconds`` for the
        coroutine, and as long again for the thread. Raise BridgeMisuse on the loop's own thread,
        and NotSent in a signal's handler that has interrupted a start or another stop.
        """
        if self.is_current():
            raise BridgeMisuse("The background loop's thread cannot wait for its own end")
        self._refuse_a_handler()
        with self._changing:
            self._ending, self._loop = self._loop, None
            loop, thread = self._ending, self._thread
            try:
                if loop is not None and thread is not None and thread.is_alive():
                    self._end(finish, loop, seconds)
                    thread.join(seconds)
            finally:
                self._ending = self._thread = self.ident = None
                afterwards()

    def _end(
        self,
        finish: Callable[[], Coroutine[Any, Any, None]],
        loop: asyncio.AbstractEventLoop,
        seconds: float,
    ) -> None:
        given_up = False

        async def in_time() -> None:
            if not given_up:  # too late, it would close what runs on the next loop
                await finish()

        with contextlib.suppress(RuntimeError):
            last = asyncio.run_coroutine_threadsafe(in_time(), loop)
            try:
                with contextlib.suppress(Exception):
                    last.result(seconds)
            finally:
                given_up = True
                last.cancel()
                loop.call_soon_threadsafe(loop.stop)

    def retire(self) -> None:
        """Start no loop from now on, as the interpreter is ending."""
        self._retired_at = monotonic()

    def linger(self) -> None:
        """Hold up a call of a daemon thread that is about to fail, while the interpreter ends."""
        if self._retired_at is not None and get_ident() != threading.main_thread().ident:
            # The interpreter is about to end this thread. An error would only appear on stderr,
            # of a program that ended normally. The call fails all the same after a while, in
            # case another thread waits for it.
            time.sleep(max(0, self._retired_at + _LINGER_S - monotonic()))

    def _end_with_the_interpreter(self) -> NoReturn:
        self.linger()
        raise NotSent("The interpreter is shutting down")


async def _cancel_all(until: float) -> None:
    # Again for tasks that have started meanwhile, such as that of a new change feed.
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=max(0, until - monotonic()))
        if monotonic() >= until:
            break


class _DaemonExecutor(ThreadPoolExecutor):
    """An executor with a daemon thread for each call.

    An ordinary pool would delay the exit of the process, for example until a name server answers.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on a thread of its own."""
        refuse_replaced_threads()  # a greenlet would run on the loop's thread, and so never
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


# Objects of the parent, kept in a forked child. If they were collected, they would close
# descriptors whose numbers are in use again.
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
    loop = asyncio.new_event_loop()
    # The loop's timers, on which nats-py's pings depend, must run even where a test freezes the
    # clock. uvloop's do, as uvloop does not ask Python for the time.
    loop.time = monotonic  # type: ignore[method-assign]
    return loop


def import_now() -> None:
    """Import on this thread what the first connection would import on the loop's thread.

    A program that leaves its operations to another thread calls this first. If it forked while
    the other thread imports, the modules would stay locked in the child.
    """
    from . import attempts, connection  # noqa: F401

    if os.environ.get(LOOP_VARIABLE) != "asyncio":
        with contextlib.suppress(ImportError):
            import uvloop  # noqa: F401


def _daemon(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Make a thread that does not keep the process alive.

    Raise ThreadRefused if this interpreter allows no such threads.
    """
    try:
        return threading.Thread(target=target, args=arguments, name=name, daemon=True)
    except RuntimeError as error:
        raise ThreadRefused(
            f"The background thread cannot be started in this interpreter: {error}. Use the cache "
            "and counters in the main interpreter, or in one that allows daemon threads"
        ) from error


def refuse_replaced_threads() -> None:
    """Raise BridgeMisuse if a library such as gevent or eventlet has replaced threads.

    Its greenlets all run in one thread of the system, which the loop would block.
    """
    # These functions are replaced by such libraries, but not wrapped by debuggers and profilers.
    functions: dict[str, object] = {"threading": _thread.get_ident, "select": select.select}
    replaced = {
        name: function
        for name, function in functions.items()
        if not isinstance(function, BuiltinFunctionType)
    }
    if replaced:
        libraries = {str(each.__module__).partition(".")[0] for each in replaced.values()}
        raise BridgeMisuse(
            f"django-nats needs real threads, but {' and '.join(sorted(libraries))} has replaced "
            f"{' and '.join(replaced)}: use threaded workers (gunicorn's gthread, celery's "
            "--pool threads or prefork) or ASGI, or patch with thread=False, select=False"
        )


thread = LoopThread()
"""The background thread of the process, which holds its connections."""
runner = LoopThread("django-nats-run")
"""The one that runs the coroutines of users, which must not hold up the connections."""
