"""A load on a bucket, of writers and of readers that keep copies, and what came of it."""

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

from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.support.staleness import UNKNOWN, History, Run, Verdict, Write, judge

ROUNDS = int(os.environ.get("NEAR_CACHE_ROUNDS", "1"))
"""How often each fault is made; more, and longer ones, by hand."""
PATIENCE = 60.0
"""Seconds for what is to happen soon, on a machine that is busy: several elections, maybe."""
MAX_STALE = 1.0
SLACK = 0.1
"""Seconds that the server may take to tell of a change, while everyone wants a processor."""
NEVER_AGAIN = 3600.0  # seconds
SERVED = 300
"""Reads from copies that show that copies are served."""


def soon(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    return eventually(condition, time.monotonic() + seconds)


class Process:
    """One process of a load."""

    def __init__(self, role: str, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.near_worker", role, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, what: str) -> None:
        """Have it do something, which it will answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def ask(self, what: str) -> Any:
        """Have it do something; its answer."""
        self.tell(what)
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
    """Writers and readers of one bucket, each group of keys counted up by a writer of its own."""

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
        """``read_through``: another location, for the readers; ``rare``: so many keys more, which
        are written after each fault only, so that copies of them are at hand."""
        options = {
            "BUCKET": "load",
            "TOKEN": server.token,
            "REQUEST_TIMEOUT": 0.5,
            **(options or {}),
        }
        where = location or server.url
        # Nothing ages out while it is waited for.
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
            assert soon(lambda: all(writer.ask("status")["writes"] for writer in self.writers))
            self.wait_until_served()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in (*self.writers, *self.readers):
            process.end()

    # While it goes on ------------------------------------------------------------------------

    def statuses(self) -> list[dict[str, Any]]:
        return [reader.ask("status") for reader in self.readers]

    def written(self) -> int:
        """How many writes of a key have been acknowledged."""
        return sum(writer.ask("status")["writes"] for writer in self.writers)

    def wait_for_writes(self, count: int) -> None:
        """Until so many more writes of a key have been acknowledged."""
        goal = self.written() + count
        assert soon(lambda: self.written() >= goal)

    def write(self) -> None:
        """Have every writer write, at once and at the same time."""
        for writer in self.writers:
            writer.tell("write")
        for writer in self.writers:
            writer.answer()

    def write_rare(self) -> None:
        """Write the keys that are written rarely."""
        self.writers[-1].ask("write")

    def wait_until_served(self) -> None:
        """Until every reader's feed is whole, and copies are served again."""
        before = self.statuses()

        def served() -> bool:
            return all(
                now["state"] == "whole" and now["hits"] > then["hits"] + SERVED
                for now, then in zip(self.statuses(), before, strict=True)
            )

        assert soon(served), self.statuses()

    def wait_until_lagging(self, seconds: float) -> None:
        """Until every reader is told of changes that are so old."""
        assert soon(lambda: all(each["lag"] > seconds for each in self.statuses()))

    def are_cut_off(self) -> bool:
        """Whether every reader knows that it has no connection."""
        return all(each["state"] != "whole" for each in self.statuses())

    def wait_until_bypassed(self, since: float, attempts: int = SERVED) -> None:
        """Until no reader is served from copies, which was to end MAX_STALE after a moment."""

        def bypassed() -> bool:
            before = self.statuses()
            assert soon(lambda: _attempts(self.statuses()) > _attempts(before) + attempts)
            return [each["hits"] for each in self.statuses()] == [each["hits"] for each in before]

        assert soon(bypassed), self.statuses()
        for status in self.statuses():
            assert status["served"] < since + self.near["MAX_STALE"], (since, status)

    def losing(self, lose: Callable[[], object]) -> None:
        """Do what makes all values go, though nobody has removed them."""
        began = time.monotonic()
        lose()
        self._losses.append((began, time.monotonic()))

    @contextmanager
    def flushing(self) -> Iterator[Callable[[], bool]]:
        """A fault after which every reader has dropped its copies, and makes new ones.

        Gives what tells whether they have been dropped.
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

    # At its end ------------------------------------------------------------------------------

    def stop(self) -> Outcome:
        """End the writers, then the readers; what all of them have seen."""
        histories: dict[str, History] = {}
        stopped = [writer.ask("stop") for writer in self.writers]
        self._wait_until_current()
        for told in stopped:
            writes = [
                Write(number, began, UNKNOWN if acked is None else acked, deleted)
                for number, began, acked, deleted in told["writes"]
            ]
            history = History([*writes, *(_loss(each, writes) for each in self._losses)])
            histories.update(dict.fromkeys(told["keys"], history))
        return Outcome(histories, [reader.ask("stop") for reader in self.readers])

    def _wait_until_current(self) -> None:
        """What has been missed would be found for as long as MAX_AGE."""

        def current() -> bool:
            stored: dict[str, int] = {}
            for writer in self.writers:
                found = writer.ask("read")
                if found is None:
                    return False
                stored.update(found)
            return all(reader.ask("read") == stored for reader in self.readers)

        assert soon(current)

    def check(self, max_stale: float = MAX_STALE) -> Outcome:
        """End it, and hold what was read against the guarantee."""
        outcome = self.stop()
        verdict = outcome.verdict
        assert not outcome.lost, outcome.lost[:3]
        assert not verdict.backwards, verdict.backwards[:3]
        assert verdict.stalest <= max_stale + SLACK, verdict
        return outcome


class Outcome:
    """What all processes of a load have seen."""

    def __init__(self, histories: dict[str, History], told: Sequence[dict[str, Any]]) -> None:
        self._histories = histories
        self._told = told
        self.verdict: Verdict = judge(
            histories, [[Run(*run) for run in each["runs"]] for each in told]
        )
        self.reads = sum(each["reads"] for each in told)
        self.hits = sum(each["hits"] for each in told)
        self.lost = [each for one in told for each in one["lost"]]
        """What readers have written themselves, and not found."""

    def __repr__(self) -> str:
        return (
            f"<{self.reads} reads, {self.hits} hits, {self.verdict.stalest:.3f} s stale at worst>"
        )

    def after_stops(self) -> list[float]:
        """How stale the first read of every thread was after it had been stopped."""
        runs = [Run(*run) for each in self._told for run in each["after_stops"]]
        return [self._histories[run.key].staleness(run) for run in runs]


def _attempts(statuses: Sequence[dict[str, Any]]) -> int:
    return int(sum(each["reads"] - each["hits"] + each["errors"] for each in statuses))


def _loss(loss: tuple[float, float], writes: Sequence[Write]) -> Write:
    began, ended = loss
    before = [each.number for each in writes if each.began < began]
    return Write(max(before, default=0) + 0.5, began, ended, True)
