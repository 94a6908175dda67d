"""Sending key_changed on a thread of its own: receivers may take their time, and use the cache."""

from __future__ import annotations

import logging
import threading
from _thread import allocate_lock, start_new_thread
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
        self._started = False
        self._turn = allocate_lock()

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to announce."""
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
        if not self._started:
            # A Thread's start() waits for it, which the connection's lock, held here, forbids.
            with suppress(RuntimeError):  # no thread can be started now: maybe by the next
                start_new_thread(self._run, ())
                self._started = True

    def _make_up(self, instead: Callable[[], None]) -> None:
        self._instead.discard(instead)
        instead()

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return  # two threads have started it at once
        threading.current_thread().name = "django-nats-signals"
        while True:
            announce = self._queue.get()
            try:
                announce()
                # As after a request: a receiver may have used the database.
                close_old_connections()
            except BaseException:  # sys.exit(), say, which would be this thread's end
                logger.exception("django-nats could not announce that a key has changed")


announcer = Announcer()
