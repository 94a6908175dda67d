"""Pending increments, added up by counter."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from ..client.counters.publishing import Increment


class Sums:
    """What a process has added to counters, from the call to the server's acknowledgement.

    An increment is appended to the queue, added up with others of its counter, made a message,
    and forgotten once that is acknowledged. Counters are named by their subjects.

    Threads append to ``queue`` at any moment. All else needs ``lock``.
    """

    def __init__(self) -> None:
        """Start with nothing pending."""
        self.lock = threading.RLock()
        """Held for moments only."""
        self.queue: deque[tuple[str, int]] = deque()
        self.waiting: dict[str, int] = {}
        """Sums for the next publication."""
        self.publishing: dict[str, int] = {}
        """Sums of which the running publication has not made increments yet."""
        self.unacknowledged: dict[str, Increment] = {}
        """Increments that are being sent, or were sent without an answer."""
        self.adding_up = False
        """True during add_up(), which a signal handler or a finalizer may interrupt."""

    def add_up(self) -> int:
        """Move the queue into the waiting sums. Return how many calls it held.

        Must not be called while ``adding_up``.
        """
        self.adding_up = True
        queue, waiting = self.queue, self.waiting
        moved = 0
        try:
            for _ in range(len(queue)):
                counter, n = queue.popleft()
                waiting[counter] = waiting.get(counter, 0) + n
                moved += 1
        finally:
            self.adding_up = False
        return moved

    def has_pending(self) -> bool:
        """Return whether anything is pending."""
        return bool(self.queue or self.waiting or self.publishing or self.unacknowledged)

    @property
    def size(self) -> int:
        """Return the number of pending sums and increments: at most three for a counter."""
        return len(self.waiting) + len(self.publishing) + len(self.unacknowledged)

    def __contains__(self, counter: str) -> bool:
        """Return whether a counter has something pending that has been added up."""
        stages = (self.waiting, self.publishing, self.unacknowledged)
        return any(counter in each for each in stages)

    @property
    def counters(self) -> int:
        """Return the number of counters that have something pending."""
        return len({*self.waiting, *self.publishing, *self.unacknowledged})

    @property
    def total(self) -> int:
        """Return the sum of all that is pending."""
        deltas = [each.delta for each in self.unacknowledged.values()]
        return sum(self.waiting.values()) + sum(self.publishing.values()) + sum(deltas)

    # A publication -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a publication of the waiting sums. What is added from now on waits for the next."""
        self.publishing, self.waiting = self.waiting, {}

    def send(self, increment: Increment) -> bool:
        """Take an increment, made of a sum, as being sent.

        Return False if it need not be sent: its sum is 0, or was forgotten meanwhile.
        """
        if self.publishing.pop(increment.counter, None) is None or not increment.delta:
            return False
        self.unacknowledged[increment.counter] = increment
        return True

    def settle(self, increments: Iterable[Increment]) -> None:
        """Return to the sums what was certainly not applied. Keep increments of unknown outcome."""
        for each in increments:
            if each.doubted is None:
                del self.unacknowledged[each.counter]
                if each.failure is not None:
                    self.waiting[each.counter] = self.waiting.get(each.counter, 0) + each.delta

    def end(self) -> None:
        """End a publication. Let the sums that it did not come to wait for the next."""
        few, many = sorted((self.waiting, self.publishing), key=len)
        for counter, delta in few.items():
            many[counter] = many.get(counter, 0) + delta
        self.waiting, self.publishing = many, {}
