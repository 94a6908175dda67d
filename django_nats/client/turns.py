"""Doing one thing after the other, where nobody may wait for who waits for him."""

from __future__ import annotations

import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable

PATIENCE = 0.05
"""Seconds. Whoever has his turn needs microseconds, unless he has been interrupted in it."""
MOST = 10_000


class Turns:
    """What is to be done, in the order in which it was asked for, by whoever gets to it first.

    A plain lock would not do. The main thread can be interrupted in the middle of its turn by a
    signal's handler, and any thread by a finalizer, which may use the cache themselves: they would
    change what is half changed, and wait for a loop that waits for this lock. So nobody waits for
    long, and what could not be done at once is done by who has his turn, before he ends it.
    """

    def __init__(self, start_over: Callable[[], object]) -> None:
        self._start_over = start_over
        """Makes everything good when a turn ends in the middle."""
        self._todo: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._owner = 0
        self._stuck = self._lost = False

    def __len__(self) -> int:
        """How much is still to be done, after what is being done."""
        return len(self._todo)

    def take(self, work: Callable[[], object]) -> bool:
        """Do something; False when that is left to who has his turn.

        Raises what interrupts it, and nothing else: what is to be done may not.
        """
        self._todo.append(work)
        while True:
            if not self._enter():
                if len(self._todo) > MOST:
                    self._lost = True
                    self._todo.clear()
                return False
            try:
                if self._lost:
                    self._lost = False
                    self._start_over()
                while self._todo:
                    self._todo.popleft()()
            except BaseException:
                self._start_over()
                raise
            finally:
                self._stuck, self._owner = False, 0
                self._lock.release()
            # Somebody may have come too late for this turn, and too early for one of his own.
            if not self._todo:
                return True

    def _enter(self) -> bool:
        if self._owner == get_ident():
            return False
        patience = 0 if self._stuck else PATIENCE
        if not self._lock.acquire(timeout=patience):
            self._stuck = True
            return False
        self._owner = get_ident()
        return True
