"""The thread that publishes the increments of a backlog in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..exceptions import NatsError
from . import endings

LONGEST_PAUSE_S = 0.5
"""The longest pause between two tries while the server is unavailable."""
_JOIN_TIMEOUT_S = 0.5


class Flusher:
    """A daemon thread that runs for as long as a backlog has something to publish.

    The thread ends when nothing is pending. The next increment starts another.
    """

    def __init__(
        self,
        interval_s: float,
        lock: AbstractContextManager[Any],
        publishing: AbstractContextManager[Any],
    ) -> None:
        """Prepare a flusher without starting its thread.

        ``interval_s`` is the pause between two publications, in seconds. ``lock`` is the lock of
        the backlog's sums, ``publishing`` the one that its publishers hold.
        """
        self.running = False
        self.ended = False
        """True from the end of the process on. No thread is started after that."""
        self._interval_s = interval_s
        self._lock = lock
        self._publishing = publishing
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(
        self, publish: Callable[[], NatsError | None], has_pending: Callable[[], bool]
    ) -> None:
        """Start the thread. The caller holds the backlog's lock.

        ``publish`` returns the reason if something is left to publish. Raises RuntimeError if the
        interpreter cannot start a thread.
        """
        self.running = True
        endings.watch()
        thread = threading.Thread(
            target=self._run,
            args=(publish, has_pending),
            name="django-nats-counters",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            self.running = False
            raise
        self._thread = thread

    def wake(self) -> None:
        """Let the thread publish without waiting for the interval to pass."""
        self._wake.set()

    def stop(self) -> None:
        """Let the thread end, start no other, and wait for it for at most half a second."""
        # Python cuts off a daemon thread that is still running at the end, and reports that.
        self.ended = True
        self._wake.set()
        # A sub-interpreter that ends while it has a thread aborts the whole process.
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def _run(
        self, publish: Callable[[], NatsError | None], has_pending: Callable[[], bool]
    ) -> None:
        pause = self._interval_s
        try:
            while self._has_work_after(pause, has_pending):
                with self._publishing:
                    if self.ended:
                        return  # still marked as running, so that no other thread is started
                    failure = publish()
                if failure is None:
                    pause = self._interval_s
                else:
                    pause = min(2 * pause, LONGEST_PAUSE_S, self._interval_s)
        except BaseException:
            self.running = False
            raise

    def _has_work_after(self, pause: float, has_pending: Callable[[], bool]) -> bool:
        """Wait, at most ``pause`` seconds, and return whether there is something to publish."""
        self._wake.wait(pause)
        self._wake.clear()
        endings.watch()
        with self._lock:
            # An increment that is added from here on finds no thread running, and waits for the
            # lock to start one: it cannot be overlooked.
            self.running = False
            self.running = has_pending()
            return self.running
