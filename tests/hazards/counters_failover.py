"""Increments by several processes while the servers of their stream die and hang, and the count.

python -m tests.hazards.counters_failover --faults 20
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
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
"""Signs of life by each process between two faults."""

_WORKER = """
import asyncio, json, os, sys, threading, time
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS={"default": json.loads(sys.argv[1])})
from django_nats.counters import Counter, counters
from django_nats.exceptions import CounterUnavailable
names, tasks, naive = json.loads(sys.argv[2])
told = {name: {"acknowledged": 0, "unknown": 0, "refused": 0} for name in names}
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
            await asyncio.sleep(0.02)  # once it is known to be away, it is refused at once
            if naive:  # as a caller might who knows nothing of ids
                number -= 1
                continue
            told[name]["unknown" if error.may_have_happened else "refused"] += 1
        else:
            told[name]["acknowledged"] += 1
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
if naive:  # one attempt for each call: what comes after is the caller's
    counters.stream._deadline = lambda now: now
life = Counter("life", str(os.getpid()))
life.incr()
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
asyncio.run(main())
stream = counters.stream
print(json.dumps({"told": told, "longest": longest, "backwards": backwards,
                  "retried": stream.retried, "recognised": stream.recognised}))
"""


@dataclass
class Figures:
    """What the processes were told, and what the servers have counted."""

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
        """Increments that were counted more than once."""
        return sum(
            max(0, self.totals[name] - self.acknowledged[name] - self.unknown[name])
            for name in NAMES
        )

    @property
    def lost(self) -> int:
        """Increments that were acknowledged, and not counted."""
        return sum(max(0, self.acknowledged[name] - self.totals[name]) for name in NAMES)

    def __str__(self) -> str:
        return (
            f"{self.faults} faults, {sum(self.acknowledged.values()):,} increments acknowledged, "
            f"{sum(self.unknown.values())} of unknown outcome, {self.refused} refused; "
            f"{self.retried:,} retries, {self.recognised} recognised as duplicates; longest call "
            f"{self.longest:.1f} s; {self.too_many} counted twice, {self.lost} lost"
        )


class Load:
    """Processes that increment until they are told to stop."""

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
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        self._tell("go")

    @property
    def lives(self) -> list[tuple[str, str]]:
        """The counters by which its processes show that they go on."""
        return [("life", str(process.pid)) for process in self._processes]

    def _tell(self, word: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()

    def finish(self, figures: Figures) -> None:
        """Stop, and add up what the processes were told."""
        self._tell("stop")
        for process in self._processes:
            stdout, stderr = process.communicate(timeout=60)
            assert process.returncode == 0, stderr
            told = json.loads(stdout)
            for name in NAMES:
                figures.acknowledged[name] += told["told"][name]["acknowledged"]
                figures.unknown[name] += told["told"][name]["unknown"]
                figures.refused += told["told"][name]["refused"]
            figures.retried += told["retried"]
            figures.recognised += told["recognised"]
            figures.backwards += told["backwards"]
            figures.longest = max(figures.longest, told["longest"])

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


def run(
    cluster: Cluster, counters: Any, *, faults: int, naive: bool = False, until_twice: bool = False
) -> Figures:
    """Let the stream's leader die and hang in turn under load; with ``until_twice``, no more
    often than it takes to see an increment counted twice."""
    figures = Figures()
    counters.incr("probe")
    entry = settings.NATS_COUNTERS[counters.alias]
    while figures.faults < faults and not (until_twice and figures.totals and figures.too_many):
        load = Load(entry, naive=naive)
        try:
            rounds = 1 if until_twice else faults
            for _ in range(rounds):
                with fault(cluster, entry["STREAM"], kill=figures.faults % 2 == 0):
                    assert eventually(lambda: is_led(counters), monotonic() + 60)
                figures.faults += 1
                assert eventually(lambda: in_step(counters), monotonic() + 60)
                wait_for_life(counters, load)
            load.finish(figures)
        finally:
            load.kill()
        figures.totals = counters.get_many(NAMES)
    return figures


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


def is_led(counters: Any) -> bool:
    """Whether there is a leader, within DEADLINE: an election that nobody wins takes longer."""
    from django_nats.exceptions import CounterUnavailable

    try:
        counters.incr("probe")
    except CounterUnavailable:
        return False
    return True


def wait_for_life(counters: Any, load: Load) -> None:
    """Let every process go on for a while, so that each fault is an outage of its own."""
    before = counters.get_many(load.lives)

    def all_went_on() -> bool:
        now = counters.get_many(load.lives)
        return all(now[name] >= before[name] + LIVELY for name in before)

    assert eventually(all_went_on, monotonic() + 60)


def in_step(counters: Any) -> bool:
    """Whether every replica has all that the stream's leader has."""
    from django_nats.client import bridge
    from django_nats.exceptions import NatsError

    try:
        document = bridge.run(counters.session, counters.stream.info())
    except NatsError:
        return False
    replicas = document["cluster"].get("replicas", [])
    return len(replicas) == 2 and all(each["current"] for each in replicas)


def options(cluster: Cluster, **more: object) -> dict[str, object]:
    """An alias's entry of NATS_COUNTERS."""
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
        from django_nats.client import bridge
        from django_nats.counters import counters

        figures = run(cluster, counters, faults=arguments.faults, naive=arguments.naive)
        print(figures)
        bridge.close()
    sys.exit(bool(figures.lost or figures.too_many))


if __name__ == "__main__":
    main()
