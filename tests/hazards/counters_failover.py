"""Count increments from several processes while the stream's servers are killed and paused.

python -m tests.hazards.counters_failover --faults 20
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from django.conf import settings

from django_nats.devserver.files import eventually
from tests.support.cluster import Cluster

STREAM = "FAILOVER"
NAMES = ("a", "b", "c")
PROCESSES = 3
TASKS = 20
"""Increments under way at any time in each process."""
LIVELY = 20
"""Increments of its "life" counter that each process completes between two faults."""

_WORKER = """
import asyncio, json, os, sys, threading, time
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS={"default": json.loads(sys.argv[1])})
from django_nats.counters import Counter, counters
from django_nats.exceptions import CounterUnavailable
names, tasks, naive = json.loads(sys.argv[2])
outcomes = {name: {"acknowledged": 0, "unknown": 0, "refused": 0} for name in names}
longest, backwards = 0.0, 0

async def work(number):
    global longest, backwards
    last = dict.fromkeys(names, 0)
    while not stop.is_set():
        number += 1
        name = names[number % len(names)]
        started = time.monotonic()
        try:
            total = await Counter(name).aincr()
        except CounterUnavailable as error:
            await asyncio.sleep(0.02)  # during a known outage, calls are refused at once
            if naive:  # retry with a new message id, as a naive caller would
                number -= 1
                continue
            outcomes[name]["unknown" if error.may_have_happened else "refused"] += 1
        else:
            outcomes[name]["acknowledged"] += 1
            backwards += total <= last[name]
            last[name] = total
        longest = max(longest, time.monotonic() - started)

async def show_life():
    while not stop.is_set():
        try:
            await life.aincr()
        except CounterUnavailable:
            pass
        await asyncio.sleep(0.02)

async def main():
    await asyncio.gather(show_life(), *(work(number) for number in range(tasks)))

stop = threading.Event()
if naive:  # one attempt per call; the caller retries
    counters.stream.increments.outage.deadline = lambda now: now
life = Counter("life", str(os.getpid()))
life.incr()
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
asyncio.run(main())
counted = counters.stream.increments
print(json.dumps({"outcomes": outcomes, "longest": longest, "backwards": backwards,
                  "retried": counted.retried, "recognised": counted.recognised}))
"""


@dataclass
class Figures:
    """The outcomes that the processes saw, and the totals on the servers."""

    faults: int = 0
    acknowledged: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    unknown: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    totals: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    retried: int = 0
    recognised: int = 0
    backwards: int = 0
    longest: float = 0.0

    @property
    def too_many(self) -> int:
        """Return the number of increments that were counted more than once."""
        return sum(
            max(0, self.totals[name] - self.acknowledged[name] - self.unknown[name])
            for name in NAMES
        )

    @property
    def lost(self) -> int:
        """Return the number of increments that were acknowledged but not counted."""
        return sum(max(0, self.acknowledged[name] - self.totals[name]) for name in NAMES)

    def __str__(self) -> str:
        return (
            f"{self.faults} faults, {sum(self.acknowledged.values()):,} increments acknowledged, "
            f"{sum(self.unknown.values())} of unknown outcome, {self.refused} refused; "
            f"{self.retried:,} retries, {self.recognised} recognised as duplicates; longest call "
            f"{self.longest:.1f} s; {self.too_many} counted twice, {self.lost} lost"
        )


class Load:
    """Processes that increment until they receive a line on stdin."""

    def __init__(self, options: dict[str, Any], *, naive: bool) -> None:
        command = [sys.executable, "-c", _WORKER, json.dumps(options)]
        self._processes = [
            subprocess.Popen(
                [*command, json.dumps([NAMES, TASKS, naive])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(PROCESSES)
        ]
        try:
            for process in self._processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", process.communicate()[1]
            self._send_line("go")
        except BaseException:
            self.kill()
            raise

    @property
    def lives(self) -> list[tuple[str, str]]:
        """Return the names of the "life" counters, one per process."""
        return [("life", str(process.pid)) for process in self._processes]

    def _send_line(self, line: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()

    def finish(self, figures: Figures) -> None:
        """Stop the processes and add their outcomes to the figures."""
        self._send_line("stop")
        for process in self._processes:
            stdout, stderr = process.communicate(timeout=850)
            assert process.returncode == 0, stderr
            report = json.loads(stdout)
            for name in NAMES:
                figures.acknowledged[name] += report["outcomes"][name]["acknowledged"]
                figures.unknown[name] += report["outcomes"][name]["unknown"]
                figures.refused += report["outcomes"][name]["refused"]
            figures.retried += report["retried"]
            figures.recognised += report["recognised"]
            figures.backwards += report["backwards"]
            figures.longest = max(figures.longest, report["longest"])

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


def run(cluster: Cluster, counters: Any, *, faults: int, naive: bool = False) -> Figures:
    """Kill and pause the stream's leader in turn, under load."""
    figures = Figures()
    counters.incr("probe")
    entry = settings.NATS_COUNTERS[counters.alias]
    load = Load(entry, naive=naive)
    try:
        while figures.faults < faults:
            with fault(cluster, entry["STREAM"], kill=figures.faults % 2 == 0):
                assert eventually(lambda: has_leader(counters), monotonic() + 60)
            figures.faults += 1
            assert eventually(lambda: replicas_are_current(counters), monotonic() + 60)
            wait_for_life(counters, load)
        load.finish(figures)
    finally:
        load.kill()
    figures.totals = totals(counters, NAMES)
    return figures


def totals(counters: Any, names: Iterable[Any]) -> dict[Any, int]:
    """Return the totals, retrying while a slow server misses the deadline."""
    from django_nats.exceptions import CounterUnavailable

    found: dict[Any, int] = {}

    def read() -> bool:
        try:
            found.update(counters.get_many(names))
        except CounterUnavailable:
            return False
        return True

    assert eventually(read, monotonic() + 60)
    return found


@contextmanager
def fault(cluster: Cluster, stream: str, *, kill: bool) -> Iterator[None]:
    leader = cluster.leader(stream)
    if kill:
        leader.kill()
    else:
        leader.pause()
    try:
        yield
    finally:
        cluster.mend()


def has_leader(counters: Any) -> bool:
    """Return True if an increment succeeds within DEADLINE, so the stream has a leader."""
    from django_nats.exceptions import CounterUnavailable

    try:
        counters.incr("probe")
    except CounterUnavailable:
        return False
    return True


def wait_for_life(counters: Any, load: Load) -> None:
    """Wait until every process has made progress, so that the next fault is a separate outage."""
    before = totals(counters, load.lives)

    def all_made_progress() -> bool:
        now = totals(counters, load.lives)
        return all(now[name] >= before[name] + LIVELY for name in before)

    assert eventually(all_made_progress, monotonic() + 60)


def replicas_are_current(counters: Any) -> bool:
    """Return True if every replica is up to date with the stream's leader."""
    from django_nats.client import drivers
    from django_nats.exceptions import NatsError

    try:
        document = drivers.run(counters.session, counters.stream.stream.opening.info())
    except NatsError:
        return False
    replicas = document["cluster"].get("replicas", [])
    return len(replicas) == 2 and all(each["current"] for each in replicas)


def options(cluster: Cluster, **more: object) -> dict[str, object]:
    """Return an alias's entry of NATS_COUNTERS."""
    return {
        "LOCATION": cluster.urls,
        "TOKEN": cluster.token,
        "STREAM": STREAM,
        "REPLICAS": 3,
        **more,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--storage", choices=["memory", "file"], default="file")
    parser.add_argument("--naive", action="store_true", help="Try again with a new id.")
    arguments = parser.parse_args()
    with Cluster(3) as cluster:
        entry = options(cluster, STORAGE=arguments.storage)
        settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS={"default": entry})
        from django_nats.client import process as client_process
        from django_nats.counters import counters

        figures = run(cluster, counters, faults=arguments.faults, naive=arguments.naive)
        print(figures)
        client_process.close()
    sys.exit(bool(figures.lost or figures.too_many))


if __name__ == "__main__":
    main()
