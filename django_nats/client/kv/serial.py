"""Running updates one at a time, without a lock that could deadlock."""

from __future__ import annotations

import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable

PATIENCE_S = 0.05
"""An update takes microseconds, unless the thread that runs it has been interrupted."""
MAX_WAITING = 10_000


class Serial:
    """Runs updates one at a time, in the order in which threads asked for them.

    A plain lock would not do. A signal's handler can interrupt the main thread in the middle of an
    update, and a finalizer any thread, and both may use the cache themselves. They would change
    what is half changed, and wait for a loop that waits for this lock. So no thread waits for long:
    an update that cannot run at once is run by the thread that holds the lock, before it releases
    the lock.
    """

    def __init__(self, start_over: Callable[[], object]) -> None:
        self._start_over = start_over
        """Called when an update was interrupted, to restore a state that is right."""
        self._todo: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._owner = 0
        self._stuck = self._lost = False

    def __len__(self) -> int:
        """Return how many updates are waiting."""
        return len(self._todo)

    def run(self, work: Callable[[], object]) -> bool:
        """Run an update. Return False if that is left to the thread that holds the lock.

        Raises only what interrupts this thread: an update itself may not raise.
        """
        self._todo.append(work)
        while True:
            if not self._enter():
                if len(self._todo) > MAX_WAITING:
                    self._lost = True
                    self._todo.clear()
                return False
            try:
                if self._lost:
                    self._lost = False
                    self._start_over()
                while (update := self._next()) is not None:
                    update()
            except BaseException:
                self._start_over()
                raise
            finally:
                self._stuck, self._owner = False, 0
                self._lock.release()
            # An update may have been added after the last look, before the lock was released.
            if not self._todo:
                return True

    def _next(self) -> Callable[[], object] | None:
        try:
            return self._todo.popleft()
        except IndexError:
            return None  # in one step, as another thread may drop them all at any moment

    def _enter(self) -> bool:
        if self._owner == get_ident():
            return False
        patience = 0 if self._stuck else PATIENCE_S
        if not self._lock.acquire(timeout=patience):
            self._stuck = True
            return False
        self._owner = get_ident()
        return True
