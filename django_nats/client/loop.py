"""The background thread whose event loop holds every connection of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..exceptions import BridgeMisuse, NotSent

LOOP_VARIABLE = "DJANGO_NATS_LOOP"
"""Environment variable: "asyncio" keeps the loop from being uvloop where that is installed."""


class LoopThread:
    """A daemon thread that runs one event loop, started by the first call of the process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.ident: int | None = None

    def after_fork(self) -> None:
        """Forget the parent's thread, which does not exist here; its loop is never touched."""
        _inherited.append((self._loop, self._thread))
        self._reset()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, from any thread. Raises NotSent when there is no loop."""
        loop = self._loop
        if loop is None:
            loop = self._start()
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            raise NotSent("The interpreter is shutting down") from error

    def _start(self) -> asyncio.AbstractEventLoop:
        _refuse_gevent()
        with self._starting:
            if self._loop is None:
                loop = _new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(loop,), name="django-nats", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError as error:
                    loop.close()
                    raise NotSent("The interpreter is shutting down") from error
                self.ident = self._thread.ident
                self._loop = loop
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            with contextlib.suppress(Exception):
                loop.run_until_complete(asyncio.sleep(0))
                loop.close()

    def stop(self, farewell: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        """Run a last coroutine, then end loop and thread; within so many seconds, or give up."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(farewell(), loop).result(seconds)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        thread.join(seconds)
        self._reset()


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


def _refuse_gevent() -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise BridgeMisuse(
            "django-nats needs real threads, but gevent has patched the threading module: "
            "use threaded workers (gunicorn's gthread) or ASGI, or patch with thread=False"
        )
