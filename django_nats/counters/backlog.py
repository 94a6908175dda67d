"""Increments that nobody waits for: added up in the process, published in the background.

A thread of its own publishes them, for as long as there are any. What was sent and got no answer
goes out again with the same id; all else goes on adding up meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import inf, isnan
from random import SystemRandom
from time import monotonic

from ..client import bridge
from ..client.increments import passes, require_integer
from ..client.loop import import_now
from ..client.publishing import MOST_AT_ONCE, Increment
from ..conf.counters import CounterSettings
from ..exceptions import (
    CounterUnavailable,
    NatsError,
    NotSent,
    ServerError,
    Unavailable,
    Unreadable,
    ValueTooLarge,
)
from ..stats import Pending

logger = logging.getLogger("django_nats")

_ROOM = 8192
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 0.5  # seconds
_NAMED = 5
_chance = SystemRandom()  # the random module's state is the user's


class Backlog:
    """What this process has still to add to the counters of an alias.

    Adding is no more than an append, which threads, signal handlers and finalizers may do at any
    moment; from there it comes into the sums under a lock, by whoever finds the queue long, or by
    the flusher. One at a time publishes: the flusher, or a caller of flush().
    """

    def __init__(self, settings: CounterSettings) -> None:
        self._settings = settings
        self._session = bridge.session(settings.connection)
        self._stream = bridge.counter_stream(settings.connection, settings.stream)
        self.after_fork()

    def __repr__(self) -> str:
        return f"<Backlog {self._settings.alias}>"

    def after_fork(self) -> None:
        """Begin anew: what a forked child finds here is its parent's to publish."""
        self._queue: deque[tuple[str, int]] = deque()
        self._sums: dict[str, int] = {}
        self._going: dict[str, int] = {}
        """The sums that are being published."""
        self._under_way: dict[str, Increment] = {}
        """What may be applied, and is not acknowledged."""
        self._guard = threading.RLock()
        """Of the sums, held for moments."""
        self._publishing = threading.Lock()
        self._wake = threading.Event()
        self._running = self._settling = self._prepared = self._said_full = self._ended = False
        self._full = True
        """Whether not every counter is taken any more; or none yet, before the first is."""
        self._room = 1
        self._unpublished = 0
        self._since = monotonic()
        self._error = ""
        """Why the last try left something."""

    # Adding ----------------------------------------------------------------------------------

    def add(self, counter: str, n: int) -> None:
        """Add to a counter, by its subject, some time soon."""
        if type(n) is not int:
            require_integer("n", n)
        if self._full and not self._takes(counter):
            return
        queue = self._queue
        queue.append((counter, n))
        if len(queue) >= self._room or not self._running:
            self._attend()

    def _takes(self, counter: str) -> bool:
        """Whether there is room for a counter; for those that are pending anyway there is."""
        with self._guard:
            if not self._prepared:
                self._prepare()
            self._settle()
            known = (self._sums, self._going, self._under_way)
            if not self._full or any(counter in each for each in known):
                return True
        settings = self._settings
        problem = (
            f"{settings.max_pending} counters of the stream {settings.stream.stream} wait to be "
            f"published (MAX_PENDING), and {counter} was not changed: "
            f"{self._error or 'so many are pending already'}"
        )
        if not settings.fail_open:
            raise CounterUnavailable(problem)
        if not self._said_full:
            self._said_full = True
            logger.error("%s. Nor will be others, until then.", problem)
        return False

    def _prepare(self) -> None:
        """See to what publishing needs of the caller's thread: later ones might not get it.

        While the interpreter ends, Python 3.12 starts no thread any more. And a fork while another
        thread imports would leave the child with modules that are locked for ever.
        """
        import_now()
        self._session.post(self._stream.api_request("$JS.API.INFO"))
        self._prepared = True

    def _attend(self) -> None:
        with self._guard:
            self._settle()
            if not self._running and not self._ended:
                self._start()
        if self._ended and threading.current_thread() is threading.main_thread():
            self.finish(0)  # a function at exit: other threads are cut off with what they add

    def _settle(self) -> None:
        """Bring what has been queued into the sums."""
        if self._settling:
            return  # this thread itself was interrupted in the midst of it
        self._settling = True
        queue, sums = self._queue, self._sums
        try:
            for _ in range(len(queue)):
                counter, n = queue.popleft()
                sums[counter] = sums.get(counter, 0) + n
                self._unpublished += 1
        finally:
            self._settling = False
        settings = self._settings
        left = settings.max_pending - len(sums) - len(self._going) - len(self._under_way)
        self._full = left <= 0 or not self._prepared
        self._said_full = self._said_full and self._full
        if self._unpublished >= settings.flush_at:
            self._unpublished = 0
            if not self._error:
                self._wake.set()
        room = 1 if self._ended else min(_ROOM, settings.flush_at - self._unpublished, left)
        self._room = max(1, room)

    @property
    def pending(self) -> Pending:
        with self._guard:
            self._settle()
            deltas = [each.delta for each in self._under_way.values()]
            total = sum(self._sums.values()) + sum(self._going.values()) + sum(deltas)
            counters = len({*self._sums, *self._going, *self._under_way})
            age = monotonic() - self._since
        return Pending(counters, total, age, self._error) if counters else Pending(0, 0, 0.0, "")

    # Publishing ------------------------------------------------------------------------------

    def _start(self) -> None:
        self._running = True
        try:
            threading.Thread(target=self._run, name="django-nats-counters", daemon=True).start()
            self._since = monotonic()
        except RuntimeError as error:
            # What is pending is kept: the next increment tries again, and so does the end.
            self._running = False
            self._note(NotSent(f"A thread that publishes them cannot be started: {error}"))

    def _run(self) -> None:
        pause = interval = self._settings.flush_interval
        try:
            while not self._has_nothing_left(pause):
                with self._publishing:
                    if self._ended:
                        return  # and no other is started
                    failure = self._publish()
                pause = interval if failure is None else min(2 * pause, _LAST_PAUSE, interval)
        except BaseException:
            self._running = False
            raise

    def _has_nothing_left(self, pause: float) -> bool:
        """Wait for the time to publish. True if there is nothing, and another thread is started
        by the next increment."""
        self._wake.wait(pause)
        self._wake.clear()
        with self._guard:
            self._running = False  # from here on, who adds comes by here
            self._running = bool(self._queue or self._sums or self._going or self._under_way)
            return not self._running

    def flush(self, seconds: float) -> None:
        """Publish all that is pending at the call, in the caller's own thread.

        Raises CounterUnavailable for what is not acknowledged after so many seconds, and what the
        server refuses for good; either stays pending.
        """
        if isnan(seconds):
            raise ValueError("timeout must be a number of seconds, not nan")
        until = monotonic() + seconds
        if not self._publishing.acquire(timeout=min(max(0, seconds), threading.TIMEOUT_MAX)):
            raise self._unfinished(NotSent("another thread is publishing"))
        try:
            pause = _FIRST_PAUSE
            while (failure := self._publish(until)) is not None:
                if not _passes(failure):
                    raise failure
                if monotonic() >= until:
                    raise self._unfinished(failure) from failure
                time.sleep(_chance.uniform(0.5, 1) * pause)
                pause = min(2 * pause, _LAST_PAUSE)
        finally:
            self._publishing.release()

    def _unfinished(self, failure: NatsError) -> CounterUnavailable:
        return CounterUnavailable(
            f"{self.pending.counters} counters of the stream {self._settings.stream.stream} still "
            f"have increments to be published: {failure}",
            may_have_happened=bool(self._under_way),
        )

    def _publish(self, until: float = inf) -> NatsError | None:
        """Try once to publish all that is pending. Why some of it is left; None if nothing is."""
        with self._guard:
            if self._settling:
                return NotSent("this thread was interrupted while it added up")
            self._settle()
            self._unpublished = 0
            self._going, self._sums = self._sums, {}
            began = monotonic()
        failures: list[NatsError] = []
        try:
            self._give_up_the_forgotten()
            again, new = list(self._under_way.values()), self._new(failures)
            for chunk in chain(self._chunks(again), self._chunks(new)):
                failures += self._send(chunk)
                if any(map(_concerns_all, failures)) or monotonic() >= until:
                    break
            if self._going and not failures:
                failures.append(NotSent("there was no time for all of them"))
        finally:
            with self._guard:
                few, many = sorted((self._sums, self._going), key=len)
                for counter, delta in few.items():
                    many[counter] = many.get(counter, 0) + delta
                self._sums, self._going = many, {}
                self._settle()
        failure = next(filter(_concerns_all, failures), failures[0] if failures else None)
        self._note(failure)
        if failure is None:
            self._since = began
        return failure

    def _chunks(self, increments: Iterable[Increment]) -> Iterator[list[Increment]]:
        """So many as go out at once; after trouble first a single one, to see if it is over."""
        remaining = iter(increments)
        most = 1 if self._error else MOST_AT_ONCE
        while chunk := list(islice(remaining, most)):
            yield chunk
            most = MOST_AT_ONCE

    def _new(self, failures: list[NatsError]) -> Iterator[Increment]:
        """Increments for the sums, but for counters of which there is one in doubt."""
        for counter, delta in list(self._going.items()):
            if counter in self._under_way:
                continue
            try:
                increment = self._stream.increment(counter, delta)
            except ValueTooLarge as error:
                failures.append(error)
                continue
            with self._guard:
                if self._going.pop(counter, None) is None:
                    continue  # forgotten meanwhile
                if delta:
                    self._under_way[counter] = increment
            if delta:
                yield increment

    def _send(self, increments: list[Increment]) -> list[NatsError]:
        """Send increments, and keep those in doubt. A failure that says why some are left."""
        try:
            bridge.run(self._session, self._stream.publish(increments))
        finally:
            with self._guard:
                self._put_back(increments)
        failures = [each.failure for each in increments if each.failure is not None]
        return sorted(failures, key=_concerns_all)[-1:]

    def _put_back(self, increments: list[Increment]) -> None:
        """Let sums be sums again that are certainly not applied; keep those in doubt."""
        for each in increments:
            if each.doubted is None:
                del self._under_way[each.counter]
                if each.failure is not None:
                    self._sums[each.counter] = self._sums.get(each.counter, 0) + each.delta

    def _give_up_the_forgotten(self) -> None:
        """Of what the server has forgotten nobody can find out any more whether it is applied."""
        now, patience = monotonic(), self._stream.patience
        forgotten = [
            each for each in self._under_way.values() if now - (each.doubted or now) > patience
        ]
        for each in forgotten:
            with self._guard:
                del self._under_way[each.counter]
            self._stream.forget(each)
        if forgotten:
            names = ", ".join(f"{each.counter} ({each.delta:+d})" for each in forgotten[:_NAMED])
            logger.error(
                "The counter stream %s could not be asked for %g s whether %d increments have "
                "arrived, and must not be sent them again, since it might count them twice. They "
                "may be missing: %s%s",
                self._settings.stream.stream,
                patience,
                len(forgotten),
                names,
                ", …" if len(forgotten) > _NAMED else "",
            )

    def _note(self, failure: NatsError | None) -> None:
        stream, before = self._settings.stream.stream, self._error
        self._error = "" if failure is None else str(failure)
        if before and not self._error:
            logger.warning("Increments of the counter stream %s are published again", stream)
        elif self._error and not before:
            logger.warning("Increments of the counter stream %s have to wait: %s", stream, failure)

    # Ending ----------------------------------------------------------------------------------

    def finish(self, seconds: float) -> None:
        """Publish what is pending at the end of the process; what cannot be, is logged."""
        try:
            self.flush(seconds)
        except NatsError as error:
            counters, total, _, _ = self.pending
            logger.error(
                "The process ends, and increments of %d counters of the stream %s, %+d in all, "
                "may be lost: %s",
                counters,
                self._settings.stream.stream,
                total,
                error,
            )
        finally:
            self._ended = True  # a thread that goes on to the very end would be cut off, and log it
            self._room = 1

    def forget(self, counters: Iterable[str]) -> None:
        """Forget what counters have pending; not what is being sent at this moment."""
        idle = self._publishing.acquire(blocking=False)
        try:
            with self._guard:
                self._settle()
                for each in counters:
                    self._sums.pop(each, None)
                    self._going.pop(each, None)
                    doubted = self._under_way.pop(each, None) if idle else None
                    if doubted is not None:
                        self._stream.forget(doubted)
        finally:
            if idle:
                self._publishing.release()

    def discard(self) -> None:
        """Forget what is pending, once nothing of it is being sent."""
        with self._publishing, self._guard:
            self._queue.clear()
            self._sums.clear()
            for each in self._under_way.values():
                self._stream.forget(each)
            self._under_way.clear()
            self._error = ""
            self._wake.set()  # for its thread to end


def _passes(failure: NatsError) -> bool:
    return isinstance(failure, (Unavailable, ServerError)) and passes(failure)


def _concerns_all(failure: NatsError) -> bool:
    """Whether a failure is not that of one counter, so that others need not be tried."""
    if isinstance(failure, (CounterUnavailable, Unreadable, ValueTooLarge)):
        return False
    return not isinstance(failure, ServerError) or passes(failure)
