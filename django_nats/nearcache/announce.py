"""The thread that sends key_changed, so that receivers may be slow and may use the cache."""

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

MAX_WAITING = 10_000
"""Announcements that may wait for slow receivers."""


class Announcer:
    """A thread that makes announcements one after the other. The first one starts it."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._queued_summaries: set[Callable[[], None]] = set()
        self._started = False
        self._running = allocate_lock()

    def after_fork(self) -> None:
        """Discard, in a forked child, the announcements that the parent still has to make."""
        self._reset()

    def put(self, announce: Callable[[], None], summary: Callable[[], None]) -> None:
        """Have a function called on the announcer's thread. Can be called from any thread.

        If too many announcements wait already, drop this one and have ``summary`` called instead.
        A summary that is waiting already stands for this announcement as well.
        """
        if self._queue.qsize() >= MAX_WAITING:
            if summary in self._queued_summaries:
                return
            self._queued_summaries.add(summary)
            announce = partial(self._announce_summary, summary)
        self._queue.put(announce)
        if not self._started:
            # The caller holds the connection's lock. Thread.start() would wait, under that lock,
            # until the thread runs.
            with suppress(RuntimeError):  # no thread can be started now: the next call tries again
                start_new_thread(self._run, ())
                self._started = True

    def _announce_summary(self, summary: Callable[[], None]) -> None:
        # Discarded before the call: a change from here on needs another summary.
        self._queued_summaries.discard(summary)
        summary()

    def _run(self) -> None:
        if not self._running.acquire(blocking=False):
            return  # two calls of put() have started a thread at the same time
        threading.current_thread().name = "django-nats-signals"
        while True:
            announce = self._queue.get()
            try:
                announce()
                # As Django does after a request: a receiver may have used the database.
                close_old_connections()
            except BaseException:  # such as SystemExit, which would end this thread
                logger.exception("Sending the signal key_changed failed; it is not repeated")


announcer = Announcer()
