"""Sending key_changed on a thread of its own: receivers may take their time, and use the cache."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from django.db import close_old_connections

logger = logging.getLogger("django_nats")

MOST = 10_000
"""Announcements that wait for slow receivers."""


class Announcer:
    """A thread that makes announcements in turn, started by the first."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._instead: set[Callable[[], None]] = set()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to announce."""
        _inherited.append(self._thread)
        self._reset()

    def put(self, announce: Callable[[], None], instead: Callable[[], None]) -> None:
        """Have a function called soon, from any thread; when too many wait already, another one,
        once for all of which there was none."""
        if self._queue.qsize() >= MOST:
            if instead in self._instead:
                return
            self._instead.add(instead)
            announce = partial(self._make_up, instead)
        self._queue.put(announce)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="django-nats-signals", daemon=True
            )
            with suppress(RuntimeError):  # the interpreter is ending
                self._thread.start()

    def _make_up(self, instead: Callable[[], None]) -> None:
        self._instead.discard(instead)
        instead()

    def _run(self) -> None:
        while True:
            announce = self._queue.get()
            try:
                announce()
                # As after a request: a receiver may have used the database.
                close_old_connections()
            except BaseException:  # sys.exit(), say, which would be this thread's end
                logger.exception("django-nats could not announce that a key has changed")


announcer = Announcer()
_inherited: list[object] = []
