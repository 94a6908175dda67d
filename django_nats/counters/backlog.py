"""Write-behind increments: added up in the process, published in the background.

A flusher, a thread of its own, publishes them for as long as there are any. An increment that was
sent and not acknowledged is sent again with the same id. All others are added up meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from math import inf, isnan
from random import SystemRandom

from ..client import drivers, process
from ..client.counters.digits import text_of
from ..client.counters.failures import passes
from ..client.counters.increments import require_integer
from ..client.counters.publishing import MOST_AT_ONCE, Increment
from ..client.transport.loop import import_now
from ..conf.connection import is_outdated
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
from ..printable import counted, duration
from ..realtime import monotonic
from ..stats import Pending
from .flusher import LONGEST_PAUSE_S, Flusher
from .sums import Sums

logger = logging.getLogger("django_nats")

_MAX_QUEUED = 8192
_FIRST_PAUSE_S = 0.02
_MAX_NAMED = 5
"""How many counters a log line names."""
_random = SystemRandom()  # not the random module's functions: their state belongs to the user


class Backlog:
    """The increments of an alias that this process has not published yet.

    add() appends to a queue and takes no lock, so threads, signal handlers and finalizers may call
    it at any moment. The queue is added up into sums, under a lock, by the thread that finds it
    long, or by the flusher. One thread publishes at a time: the flusher, or a caller of flush().
    """

    def __init__(self, settings: CounterSettings) -> None:
        """Start without pending increments. The server is not asked."""
        self._settings = settings
        self._session = process.session(settings.connection)
        self._stream = process.counter_stream(settings.connection, settings.stream)
        self.after_fork()

    def __repr__(self) -> str:
        """Return the alias, and nothing of its settings, which may hold secrets."""
        return f"<Backlog {self._settings.alias}>"

    @property
    def is_outdated(self) -> bool:
        """Return True if it publishes to the server of another test run, or of none."""
        connection = self._settings.connection
        return connection.embedded is not None and is_outdated(connection)

    def after_fork(self) -> None:
        """Start without pending increments: the parent publishes those a forked child inherits."""
        self._sums = Sums()
        self._queue = self._sums.queue
        self._lock = self._sums.lock
        self._publishing = threading.Lock()
        """Held by the thread that publishes."""
        self._flusher = Flusher(self._settings.flush_interval, self._lock, self._publishing)
        self._prepared = self._full_logged = False
        self._full = True
        """Whether a new counter may be refused. Also True before the first increment, so that it
        takes the slow way, which prepares the connection."""
        self._queue_limit = 1
        self._added = 0
        """Increments added up since the last publication began."""
        self._pending_since = monotonic()
        self._error = ""
        """Why the last publication left something."""

    # Adding ----------------------------------------------------------------------------------

    def add(self, counter: str, n: int) -> None:
        """Add to a counter, named by its subject, in the background.

        Raises TypeError if n is not an integer, and CounterUnavailable if MAX_PENDING other
        counters are pending. FAIL_OPEN drops the increment in that case.
        """
        if type(n) is not int:
            require_integer("n", n)
        if self._full and not self._has_room_for(counter):
            return
        queue = self._queue
        queue.append((counter, n))
        if len(queue) >= self._queue_limit or not self._flusher.running:
            self._add_up_and_start()

    def _has_room_for(self, counter: str) -> bool:
        """Return whether a counter may be added to: always if it is pending already."""
        with self._lock:
            if not self._prepared:
                self._prepare()
            self._add_up()
            if not self._full or counter in self._sums:
                return True
        settings = self._settings
        problem = (
            f"The counter {counter} was not changed, since {settings.max_pending} counters of the "
            f"stream {settings.stream.stream} have unpublished increments already (MAX_PENDING)"
        )
        if self._error:
            problem += f": {self._error}"
        if not settings.fail_open:
            raise CounterUnavailable(problem)
        if not self._full_logged:
            self._full_logged = True
            logger.error(
                "%s. Increments of other counters are dropped, too, until some are published.",
                problem,
            )
        return False

    def _prepare(self) -> None:
        """Import and send what publishing needs, while the caller's thread can.

        Python 3.12 starts no thread once the interpreter ends. And a child that is forked while
        another thread imports a module inherits that module's import lock, which nobody releases.
        """
        import_now()
        stream = self._stream.stream
        self._session.post(stream.api_request(stream.api.account))
        self._prepared = True

    def _add_up_and_start(self) -> None:
        """Add up the queue, and start the flusher if it does not run."""
        with self._lock:
            self._add_up()
            if not self._flusher.running and not self._flusher.ended:
                self._start_flusher()
        if self._flusher.ended and threading.current_thread() is threading.main_thread():
            # Called by a function at exit. Other threads are cut off, with what they add.
            self.finish(0)

    def _start_flusher(self) -> None:
        try:
            self._flusher.start(self._publish, self._sums.has_pending)
            self._pending_since = monotonic()
        except RuntimeError as error:
            # The increments stay pending. The next one starts the thread, or the process ends and
            # publishes them.
            self._log_change(NotSent(f"A thread that publishes them cannot be started: {error}"))

    def _add_up(self) -> None:
        """Move the queue into the sums. The caller holds the lock."""
        if self._sums.adding_up:
            return  # a signal handler or a finalizer has interrupted this very method
        moved = self._sums.add_up()
        self._added += moved
        settings = self._settings
        left = settings.max_pending - self._sums.size
        self._full = left <= 0 or not self._prepared
        self._full_logged = self._full_logged and self._full
        if self._added >= settings.flush_at:
            self._added = 0
            if not self._error:
                self._flusher.wake()
        if self._flusher.ended:
            self._queue_limit = 1
        else:
            self._queue_limit = max(1, min(_MAX_QUEUED, settings.flush_at - self._added, left))

    @property
    def pending(self) -> Pending:
        """Return how much is pending, for how many seconds, and why."""
        with self._lock:
            self._add_up()
            counters, total = self._sums.counters, self._sums.total
            age = monotonic() - self._pending_since
        return Pending(counters, total, age, self._error) if counters else Pending(0, 0, 0.0, "")

    # Publishing ------------------------------------------------------------------------------

    def flush(self, timeout: float) -> None:
        """Publish all that is pending at the time of the call, in the caller's thread.

        ``timeout`` is in seconds. Raises CounterUnavailable if something is not acknowledged
        within it, and the server's error if an increment is refused permanently. What is left
        stays pending.
        """
        if isnan(timeout):
            raise ValueError("timeout must be a number of seconds, not nan")
        until = monotonic() + timeout
        if not self._publishing.acquire(timeout=min(max(0, timeout), threading.TIMEOUT_MAX)):
            raise self._unfinished(NotSent("another thread is publishing"))
        try:
            pause = _FIRST_PAUSE_S
            while (failure := self._publish(until)) is not None:
                if not _is_temporary(failure):
                    raise failure
                if monotonic() >= until:
                    raise self._unfinished(failure) from failure
                time.sleep(_random.uniform(0.5, 1) * pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._publishing.release()

    def _unfinished(self, failure: NatsError) -> CounterUnavailable:
        return CounterUnavailable(
            f"Increments of {counted(self.pending.counters, 'counter')} of the stream "
            f"{self._settings.stream.stream} are still to be published: {failure}",
            may_have_happened=bool(self._sums.unacknowledged),
        )

    def _publish(self, until: float = inf) -> NatsError | None:
        """Try once to publish all that is pending.

        Return None if nothing is left, and the reason otherwise. Begin no further batch after
        ``until``, on the monotonic clock. The caller holds the publishing lock.
        """
        with self._lock:
            if self._sums.adding_up:
                return NotSent("this thread was interrupted while it added up")
            self._add_up()
            self._added = 0
            self._sums.begin()
            began = monotonic()
        failures: list[NatsError] = []
        try:
            self._drop_unverifiable()
            again = list(self._sums.unacknowledged.values())
            new = self._new_increments(failures)
            for chunk in chain(self._chunks(again), self._chunks(new)):
                failures += self._send(chunk)
                if any(map(_concerns_all, failures)) or monotonic() >= until:
                    break
            if self._sums.publishing and not failures:
                failures.append(NotSent("there was no time for all of them"))
        finally:
            with self._lock:
                self._sums.end()
                self._add_up()
        failure = next(filter(_concerns_all, failures), failures[0] if failures else None)
        self._log_change(failure)
        if failure is None:
            self._pending_since = began
        return failure

    def _chunks(self, increments: Iterable[Increment]) -> Iterator[list[Increment]]:
        """Yield the increments in batches.

        After a failure the first batch is a single increment, which shows whether the server is
        back.
        """
        remaining = iter(increments)
        size = 1 if self._error else MOST_AT_ONCE
        while chunk := list(islice(remaining, size)):
            yield chunk
            size = MOST_AT_ONCE

    def _new_increments(self, failures: list[NatsError]) -> Iterator[Increment]:
        """Yield an increment for each sum, but not for counters with an unacknowledged one."""
        for counter, delta in list(self._sums.publishing.items()):
            if counter in self._sums.unacknowledged:
                continue
            try:
                increment = self._stream.publishing.increment(counter, delta)
            except ValueTooLarge as error:
                failures.append(error)
                continue
            with self._lock:
                must_send = self._sums.send(increment)
            if must_send:
                yield increment

    def _send(self, increments: list[Increment]) -> list[NatsError]:
        """Send increments. Return one failure, of the most general kind, or nothing."""
        try:
            drivers.run(self._session, self._stream.publishing.publish(increments))
        finally:
            with self._lock:
                self._sums.settle(increments)
        failures = [each.failure for each in increments if each.failure is not None]
        return sorted(failures, key=_concerns_all)[-1:]

    def _drop_unverifiable(self) -> None:
        """Give up increments whose ids the server has forgotten.

        Sent again, they might count twice. Whether they were applied cannot be found out.
        """
        now, patience = monotonic(), self._stream.publishing.patience
        dropped = [
            each
            for each in self._sums.unacknowledged.values()
            if now - (each.doubted or now) > patience
        ]
        names = ", ".join(
            f"{each.counter} ({text_of(each.delta, '+')})" for each in dropped[:_MAX_NAMED]
        )
        for each in dropped:
            with self._lock:
                del self._sums.unacknowledged[each.counter]
            self._stream.publishing.forget(each)
        if dropped:
            logger.error(
                "Gave up %s of the counter stream %s, which may be missing from the totals: for %s "
                "the server could not be asked whether it has them, and now they might count "
                "twice if they were sent again. Counters: %s%s",
                counted(len(dropped), "increment"),
                self._settings.stream.stream,
                duration(patience),
                names,
                ", …" if len(dropped) > _MAX_NAMED else "",
            )

    def _log_change(self, failure: NatsError | None) -> None:
        """Remember why increments are left. Log the beginning and the end of that state."""
        stream, before = self._settings.stream.stream, self._error
        self._error = "" if failure is None else str(failure)
        if before and not self._error:
            logger.warning("Increments of the counter stream %s are published again", stream)
        elif self._error and not before:
            logger.warning(
                "Increments of the counter stream %s have to wait, and are published later: %s",
                stream,
                failure,
            )

    # Ending ----------------------------------------------------------------------------------

    def finish(self, timeout: float) -> None:
        """Publish what is pending at the end of the process, within ``timeout`` seconds.

        What cannot be published is logged. Nothing is raised.
        """
        try:
            self.flush(timeout)
        except NatsError as error:
            counters, total, _, _ = self.pending
            logger.error(
                "The process ends, and increments of %s of the stream %s, %s in all, "
                "may be lost: %s",
                counted(counters, "counter"),
                self._settings.stream.stream,
                text_of(total, "+"),
                error,
            )
        finally:
            self._flusher.ended = True  # before the limit, which _add_up() may set meanwhile
            self._queue_limit = 1
            self._flusher.stop()

    def forget(self, counters: Iterable[str]) -> None:
        """Drop what counters, named by their subjects, have pending.

        What is being sent at this moment is sent all the same.
        """
        idle = self._publishing.acquire(blocking=False)
        try:
            with self._lock:
                self._add_up()
                for each in counters:
                    self._sums.waiting.pop(each, None)
                    self._sums.publishing.pop(each, None)
                    increment = self._sums.unacknowledged.pop(each, None) if idle else None
                    if increment is not None:
                        self._stream.publishing.forget(increment)
        finally:
            if idle:
                self._publishing.release()

    def discard(self) -> None:
        """Drop all that is pending. Wait for a running publication first."""
        with self._publishing, self._lock:
            self._queue.clear()
            self._sums.waiting.clear()
            for each in self._sums.unacknowledged.values():
                self._stream.publishing.forget(each)
            self._sums.unacknowledged.clear()
            self._error = ""
            self._flusher.wake()  # it finds nothing to publish, and ends


def _is_temporary(failure: NatsError) -> bool:
    return isinstance(failure, (Unavailable, ServerError)) and passes(failure)


def _concerns_all(failure: NatsError) -> bool:
    """Return whether a failure is not that of one counter, so that no other need be tried."""
    if isinstance(failure, (CounterUnavailable, Unreadable, ValueTooLarge)):
        return False
    return not isinstance(failure, ServerError) or passes(failure)
