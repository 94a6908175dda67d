"""A process of a load, which writes or reads all the time and reads commands from stdin.

The arguments are the role and, as JSON, the location, OPTIONS and the arguments of the role. Each
line on stdin is the name of a method. Its result is written to stdout as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.conf import settings

STOP_S = 1.0
"""A thread that takes this long between two reads is assumed to have been paused."""
ERROR_PAUSE_S = 0.005
RETRY_PAUSE_S = 0.2
"""Before the next write when one has failed, even if writes are to be rare."""
LONGEST_REST_S = 1.0


def rest(pause: float, worked: float) -> float:
    """Return the seconds to rest after seconds of work.

    On a slow machine, threads that rest only for a fixed pause would leave no time to those that
    follow the changes.
    """
    return max(pause, min(worked, LONGEST_REST_S))


class Writer:
    """A thread that increments all keys of a group together, and deletes them every few writes."""

    def __init__(self, cache: Any, keys: list[str], pause: float, delete_every: int) -> None:
        self._cache = cache
        self._keys = keys
        self._pause = pause
        self._delete_every = delete_every
        self._writes: list[tuple[int, float, float | None, bool]] = []
        self._number = self._acknowledged = 0
        self._failure = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            pause = self._pause if self.write() else min(self._pause, RETRY_PAUSE_S)
            # Each write costs the readers more than it costs the writer.
            self._ended.wait(rest(pause, 4 * (time.monotonic() - began)))

    def write(self) -> bool:
        """Write the next number without a pause. Return True if that was acknowledged."""
        from django_nats.exceptions import NatsError, NotSent

        with self._lock:
            self._number += 1
            deleted = bool(self._delete_every) and self._number % self._delete_every == 0
            began = time.monotonic()
            acked: float | None = None
            try:
                if deleted:
                    self._cache.delete_many(self._keys)
                    failed = []
                else:
                    failed = self._cache.set_many(dict.fromkeys(self._keys, self._number), None)
                if not failed:
                    acked = time.monotonic()
                    self._acknowledged += len(self._keys)
            except NotSent as error:
                self._failure = str(error)
                return False
            except NatsError as error:
                self._failure = str(error)
            self._writes.append((self._number, began, acked, deleted))
            return acked is not None

    def status(self) -> dict[str, Any]:
        return {"writes": self._acknowledged, "last failure": self._failure}

    def read(self) -> dict[str, int] | None:
        return _read(self._cache, self._keys)

    def stop(self) -> dict[str, Any]:
        self._ended.set()
        self._thread.join()
        return {"keys": self._keys, "writes": self._writes}


class Reader:
    """Threads that read all keys repeatedly, one in an event loop, and one that writes a key."""

    def __init__(self, cache: Any, keys: list[str], pause: float, own: str) -> None:
        self._cache = cache
        self._keys = keys
        self._pause = pause
        self._own = own
        self._runs: list[list[tuple[str, int | None, float, float, float]]] = []
        self._after_stops: list[tuple[str, int | None, float, float, float]] = []
        self._lost: list[str] = []
        self._reads = self._errors = 0
        self._served = 0.0
        self._going = True
        ways = (self._read_each, self._read_many, self._read_in_loop, self._write_own)
        self._threads = [threading.Thread(target=way, daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    def _record(self) -> Recorder:
        recorder = Recorder(self._after_stops)
        self._runs.append(recorder.done)
        return recorder

    def _read_each(self) -> None:
        from django_nats.exceptions import NatsError

        recorder = self._record()
        while self._going:
            round_began = time.monotonic()
            for key in self._keys:
                hits = self._cache.near.hits
                began = time.monotonic()
                try:
                    value = self._cache.get(key)
                except NatsError:
                    self._errors += 1
                    time.sleep(ERROR_PAUSE_S)
                    continue
                recorder.note(((key, value),), began, time.monotonic())
                self._reads += 1
                if self._cache.near.hits > hits:
                    self._served = began
            time.sleep(rest(self._pause, time.monotonic() - round_began))
        recorder.finish()

    def _read_many(self) -> None:
        from django_nats.exceptions import NatsError

        recorder = self._record()
        while self._going:
            began = time.monotonic()
            try:
                found = self._cache.get_many(self._keys)
            except NatsError:
                self._errors += 1
                time.sleep(ERROR_PAUSE_S)
                continue
            ended = time.monotonic()
            recorder.note(((key, found.get(key)) for key in self._keys), began, ended)
            self._reads += len(self._keys)
            time.sleep(rest(self._pause, ended - began))
        recorder.finish()

    def _read_in_loop(self) -> None:
        from django_nats.exceptions import NatsError

        recorder = self._record()

        async def read(key: str) -> None:
            began = time.monotonic()
            try:
                value = await self._cache.aget(key)
            except NatsError:
                self._errors += 1
                await asyncio.sleep(ERROR_PAUSE_S)
                return
            recorder.note(((key, value),), began, time.monotonic())
            self._reads += 1

        async def go() -> None:
            while self._going:
                began = time.monotonic()
                for key in self._keys:
                    await read(key)
                await asyncio.sleep(rest(self._pause, time.monotonic() - began))

        asyncio.run(go())
        recorder.finish()

    def _write_own(self) -> None:
        """Write the reader's own key, and check that a read finds each acknowledged value.

        No other process writes the key. Only an earlier write whose outcome was unknown may be
        found instead: a paused server stores it when it resumes.
        """
        from django_nats.exceptions import NatsError, OutcomeUnknown

        number = 0
        in_doubt: set[int] = set()
        while self._going:
            number += 1
            try:
                self._cache.set(self._own, number, None)
            except OutcomeUnknown:
                in_doubt.add(number)
            except NatsError:
                pass
            else:
                before = time.monotonic()
                with suppress(NatsError):
                    found = self._cache.get(self._own)
                    if found in in_doubt:
                        in_doubt.remove(found)  # no write is stored twice
                    elif found != number:
                        self._lost.append(f"{number} was written, and {found} found at {before}")
            time.sleep(self._pause)

    def status(self) -> dict[str, Any]:
        near = self._cache.near
        names = ("state", "flushes", "hits", "misses", "entries", "bytes", "lag")
        return {
            **{name: getattr(near, name) for name in names},
            "reads": self._reads,
            "errors": self._errors,
            "after_stops": len(self._after_stops),
            "connections": self._cache.session.epoch,
            "served": self._served,
        }

    def read(self) -> dict[str, int] | None:
        return _read(self._cache, self._keys)

    def stop(self) -> dict[str, Any]:
        self._going = False
        for thread in self._threads:
            thread.join()
        return {
            "runs": [run for runs in self._runs for run in runs],
            **self.status(),
            "after_stops": self._after_stops,
            "lost": self._lost,
        }


def _read(cache: Any, keys: list[str]) -> dict[str, int] | None:
    """Return the current values, or None if they cannot be read."""
    from django_nats.exceptions import NatsError

    try:
        return dict(cache.get_many(keys))
    except NatsError:
        return None


class Recorder:
    """The reads of one thread. Successive reads of the same value are recorded as one run."""

    def __init__(self, after_stops: list[tuple[str, int | None, float, float, float]]) -> None:
        self.done: list[tuple[str, int | None, float, float, float]] = []
        self._after_stops = after_stops
        self._runs: dict[str, tuple[int | None, float, float, float]] = {}
        self._last = time.monotonic()

    def note(self, found: Iterable[tuple[str, int | None]], began: float, ended: float) -> None:
        stopped = began - self._last > STOP_S
        self._last = ended
        for key, number in found:
            if stopped:
                self._after_stops.append((key, number, ended, began, ended))
            run = self._runs.get(key)
            if run is not None and run[0] == number:
                self._runs[key] = (number, run[1], began, ended)
                continue
            if run is not None:
                self.done.append((key, *run))
            self._runs[key] = (number, ended, began, ended)

    def finish(self) -> None:
        self.done += [(key, *run) for key, run in self._runs.items()]


def main() -> None:
    role, arguments = sys.argv[1], json.loads(sys.argv[2])
    settings.configure(SECRET_KEY="only-for-tests")
    from django_nats.cache import NatsCache

    cache = NatsCache(arguments.pop("location"), {"OPTIONS": arguments.pop("options")})
    worker = {"writer": Writer, "reader": Reader}[role](cache, **arguments)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(worker, line.strip())()), flush=True)


if __name__ == "__main__":
    main()
