"""Processes that write and read one bucket, the readers with near caches, and the outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.support.staleness import UNKNOWN, History, Run, Verdict, Write, judge

ROUNDS = int(os.environ.get("NEAR_CACHE_ROUNDS", "1"))
"""The number of repetitions of each fault. Set it higher for long runs by hand."""
PATIENCE = 240.0
"""Seconds to wait for an expected event on a busy machine, possibly for several elections."""
ALONE = [pytest.mark.timeout(1200 * ROUNDS), pytest.mark.xdist_group("near_load")]
"""Marks for files of tests with a load, which run one at a time: each has several processes."""
MAX_STALE = 2.0
SLACK_S = 0.1
"""The seconds by which the server may delay a change while all processes compete for the CPU."""
NEVER_AGAIN = 3600.0  # seconds: longer than any test
SERVED = 300
"""The number of hits after which copies count as served."""


def soon(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    return eventually(condition, time.monotonic() + seconds)


class Process:
    """A writer or reader process of a load."""

    def __init__(self, role: str, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.near_worker", role, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send(self, command: str) -> None:
        """Send a command, whose answer is read by answer()."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def ask(self, command: str) -> Any:
        """Send a command and return its answer."""
        self.send(command)
        return self.answer()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]
        return json.loads(line)

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Load:
    """Writers and readers of one bucket. Each writer increments its own group of keys."""

    def __init__(
        self,
        server: NatsServer,
        *,
        options: dict[str, Any] | None = None,
        near: dict[str, Any] | None = None,
        location: object = None,
        read_through: object = None,
        writers: int = 2,
        readers: int = 2,
        keys: int = 25,
        pause: float = 0.01,
        delete_every: int = 5,
        rare: int = 5,
    ) -> None:
        """Prepare the processes.

        ``read_through`` is another location for the readers. ``rare`` is the number of additional
        keys that are written only after each fault, so that copies of them exist.
        """
        options = {
            "BUCKET": "load",
            "TOKEN": server.token,
            "CONNECT_TIMEOUT": 10.0,
            "REQUEST_TIMEOUT": 2.0,
            **(options or {}),
        }
        where = location or server.url
        # No copy reaches MAX_AGE while a test waits.
        aged = 10 * PATIENCE
        self.near = {"MAX_STALE": MAX_STALE, "MAX_AGE": aged, "MISSES": True, **(near or {})}
        self._groups = [[f"load:{group}:{key}" for key in range(keys)] for group in range(writers)]
        self._losses: list[tuple[float, float]] = []
        self._writing = [
            {
                "location": where,
                "options": options,
                "keys": group,
                "pause": pause,
                "delete_every": delete_every,
            }
            for group in self._groups
        ]
        self._groups.append([f"load:rare:{key}" for key in range(rare)])
        self._writing.append(
            {
                **self._writing[0],
                "keys": self._groups[-1],
                "pause": NEVER_AGAIN,
                "delete_every": 0,
            }
        )
        self._reading = [
            {
                "location": read_through or where,
                "options": {**options, "NEAR_CACHE": self.near},
                "keys": [key for group in self._groups for key in group],
                "pause": min(pause / 5, 0.002),
                "own": f"own:{number}",
            }
            for number in range(readers)
        ]
        self.writers: list[Process] = []
        self.readers: list[Process] = []

    def __enter__(self) -> Load:
        try:
            self.writers = [Process("writer", **each) for each in self._writing]
            self.readers = [Process("reader", **each) for each in self._reading]
            for process in (*self.writers, *self.readers):
                process.answer()
            self._wait_for_first_writes()
            self.wait_until_served()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in (*self.writers, *self.readers):
            process.end()

    def _wait_for_first_writes(self) -> None:
        def statuses() -> list[dict[str, Any]]:
            return [writer.ask("status") for writer in self.writers]

        assert soon(lambda: all(each["writes"] for each in statuses())), statuses()

    # While the load runs ---------------------------------------------------------------------

    def statuses(self) -> list[dict[str, Any]]:
        return [reader.ask("status") for reader in self.readers]

    def written(self) -> int:
        """Return the number of acknowledged writes of keys."""
        return sum(writer.ask("status")["writes"] for writer in self.writers)

    def wait_for_writes(self, count: int) -> None:
        """Wait until ``count`` more writes of keys have been acknowledged."""
        goal = self.written() + count
        assert soon(lambda: self.written() >= goal)

    def write(self) -> None:
        """Have every writer write at the same time, without a pause."""
        for writer in self.writers:
            writer.send("write")
        for writer in self.writers:
            writer.answer()

    def write_rare(self) -> None:
        """Write the keys that are written rarely."""
        self.writers[-1].ask("write")

    def wait_until_served(self) -> None:
        """Wait until every reader's feed is whole and copies are served again."""
        before = self.statuses()

        def served() -> bool:
            return all(
                now["state"] == "whole" and now["hits"] > then["hits"] + SERVED
                for now, then in zip(self.statuses(), before, strict=True)
            )

        assert soon(served), self.statuses()

    def wait_until_lagging(self, seconds: float) -> None:
        """Wait until every reader receives changes that are older than ``seconds``."""
        assert soon(lambda: all(each["lag"] > seconds for each in self.statuses()))

    def wait_until_behind(self) -> None:
        """Wait until every reader finds a value older than one that has been acknowledged."""
        rare = self._groups[-1]

        def found() -> list[list[int | None]]:
            read = [reader.ask("read") or {} for reader in self.readers]
            return [[each.get(key) for key in rare] for each in read]

        def behind() -> bool:
            before = found()
            self.write_rare()
            return all(any(then) and then == now for then, now in zip(before, found(), strict=True))

        assert soon(behind), self.statuses()

    def are_cut_off(self) -> bool:
        """Return True if every reader has noticed that its connection is lost."""
        return all(each["state"] != "whole" for each in self.statuses())

    def wait_until_bypassed(self, since: float, attempts: int = SERVED) -> None:
        """Wait until no reader is served from copies.

        Assert that the last one was served less than MAX_STALE after ``since``.
        """

        def bypassed() -> bool:
            before = self.statuses()
            assert soon(lambda: _attempts(self.statuses()) > _attempts(before) + attempts)
            return [each["hits"] for each in self.statuses()] == [each["hits"] for each in before]

        assert soon(bypassed), self.statuses()
        for status in self.statuses():
            assert status["served"] < since + self.near["MAX_STALE"], (since, status)

    def losing(self, lose: Callable[[], object]) -> None:
        """Call a function that makes all values disappear without a delete."""
        began = time.monotonic()
        lose()
        self._losses.append((began, time.monotonic()))

    @contextmanager
    def flushing(self) -> Iterator[Callable[[], bool]]:
        """Assert that every reader drops its copies after the block, and makes new ones.

        Yield a function that returns True if the copies have been dropped.
        """
        before = self.statuses()

        def flushed() -> bool:
            return all(
                now["flushes"] > then["flushes"]
                for now, then in zip(self.statuses(), before, strict=True)
            )

        yield flushed
        self.write_rare()
        assert soon(flushed), self.statuses()
        self.wait_until_served()

    # At the end ------------------------------------------------------------------------------

    def stop(self) -> Outcome:
        """Stop the writers, then the readers. Return the outcome."""
        histories: dict[str, History] = {}
        stopped = [writer.ask("stop") for writer in self.writers]
        self._wait_until_current()
        for report in stopped:
            writes = [
                Write(number, began, UNKNOWN if acked is None else acked, deleted)
                for number, began, acked, deleted in report["writes"]
            ]
            history = History([*writes, *(_loss(each, writes) for each in self._losses)])
            histories.update(dict.fromkeys(report["keys"], history))
        return Outcome(histories, [reader.ask("stop") for reader in self.readers])

    def _wait_until_current(self) -> None:
        """Wait until every reader finds the stored values, before its copies reach MAX_AGE."""

        def differences() -> list[object]:
            stored: dict[str, int] = {}
            for writer in self.writers:
                found = writer.ask("read")
                if found is None:
                    return ["a writer cannot read", writer.ask("status")]
                stored.update(found)
            read = [reader.ask("read") for reader in self.readers]
            return [each and differing(stored, each) for each in read if each != stored]

        assert soon(lambda: not differences()), (differences(), self.statuses())

    def check(self, max_stale: float = MAX_STALE) -> Outcome:
        """Stop the load and assert that every read kept the near cache's guarantee."""
        outcome = self.stop()
        verdict = outcome.verdict
        assert not outcome.lost, outcome.lost[:3]
        assert not verdict.backwards, verdict.backwards[:3]
        assert verdict.stalest <= max_stale + SLACK_S, verdict
        return outcome


class Outcome:
    """The reads of all processes of a load, and their verdict."""

    def __init__(self, histories: dict[str, History], reports: Sequence[dict[str, Any]]) -> None:
        self._histories = histories
        self._reports = reports
        self.verdict: Verdict = judge(
            histories, [[Run(*run) for run in each["runs"]] for each in reports]
        )
        self.reads = sum(each["reads"] for each in reports)
        self.hits = sum(each["hits"] for each in reports)
        self.lost = [each for one in reports for each in one["lost"]]
        """Values that readers have written themselves and did not find."""

    def __repr__(self) -> str:
        return (
            f"<{self.reads} reads, {self.hits} hits, {self.verdict.stalest:.3f} s stale at worst>"
        )

    def after_stops(self) -> list[tuple[float, float]]:
        """Return start and staleness, in seconds, of each thread's first read after a pause."""
        runs = [Run(*run) for each in self._reports for run in each["after_stops"]]
        return [(run.last_began, self._histories[run.key].staleness(run)) for run in runs]


def differing(
    stored: dict[str, int], read: dict[str, int]
) -> dict[str, tuple[int | None, int | None]]:
    """Return, by key, what is stored and what was read instead."""
    return {
        key: (stored.get(key), read.get(key))
        for key in stored.keys() | read.keys()
        if stored.get(key) != read.get(key)
    }


def _attempts(statuses: Sequence[dict[str, Any]]) -> int:
    return int(sum(each["reads"] - each["hits"] + each["errors"] for each in statuses))


def _loss(loss: tuple[float, float], writes: Sequence[Write]) -> Write:
    began, ended = loss
    before = [each.number for each in writes if each.began < began]
    return Write(max(before, default=0) + 0.5, began, ended, True)
