"""A comparison of the two algorithms of limits with a log of all hits.

    python -m tests.benchmarks.accuracy

The clock is simulated and traffic is seeded, so that the figures are the same on every machine. At
every hit, the algorithm is compared with a log of the times of those hits that it has let through:
how many of them came within the last window's length? The script prints

- error: how far the algorithm's count is from that of the log, on average, in percent of the limit;
- let through: hits that pass although the log has no room for them, in percent of all hits;
- refused: hits that are refused although the log has room for them, be it for one hit, in percent;
- most: the largest number of hits let through within any window's length, divided by the limit;
- total: hits let through, divided by those that a limiter with a log lets through.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django_nats.limits.algorithms import ALGORITHMS
from django_nats.limits.rates import Rate
from tests.support.windows import Windows, largest, since

RATE = Rate(100, 64)
WINDOWS = 300
_FULL = RATE.count / RATE.seconds
"""Hits a second that are just let through."""

Traffic = Callable[[random.Random, float], Iterator[float]]
"""Yields the times of hits until an end, in seconds."""


def even(load: float) -> Traffic:
    """Hits at regular distances, at a load of so many times the rate."""

    def times(chance: random.Random, end: float) -> Iterator[float]:
        now = chance.random()
        while now < end:
            yield now
            now += 1 / (load * _FULL)

    return times


def independent(load: float) -> Traffic:
    """Hits of many visitors who do not know of each other: a Poisson process."""

    def times(chance: random.Random, end: float) -> Iterator[float]:
        now = 0.0
        while (now := now + chance.expovariate(load * _FULL)) < end:
            yield now

    return times


def bursts(load: float, size: int) -> Traffic:
    """Bursts of a number of hits within a second, at independent times."""

    def times(chance: random.Random, end: float) -> Iterator[float]:
        for begin in independent(load / size)(chance, end):
            yield from sorted(begin + chance.random() for _ in range(size))

    return lambda chance, end: iter(sorted(times(chance, end)))


def at_the_edge(chance: random.Random, end: float) -> Iterator[float]:
    """Count hits at the end of every second window, and hits all the time in the next one."""
    for first in range(0, int(end), 2 * RATE.seconds):
        edge = first + RATE.seconds
        yield from (edge - 0.25 + number * 0.001 for number in range(RATE.count))
        yield from (edge + number / (2 * _FULL) for number in range(2 * RATE.count))


TRAFFIC: dict[str, Traffic] = {
    "even, 0.9 of the rate": even(0.9),
    "even, twice the rate": even(2),
    "independent, 0.8 of the rate": independent(0.8),
    "independent, the rate": independent(1),
    "independent, twice the rate": independent(2),
    "bursts of 20, the rate": bursts(1, 20),
    "bursts of 100, the rate": bursts(1, 100),
    "the worst": at_the_edge,
}


@dataclass(frozen=True)
class Accuracy:
    error_percent: float
    let_through_percent: float
    refused_percent: float
    most: float
    total: float


def compare(algorithm: str, traffic: Traffic, windows: int = WINDOWS) -> Accuracy:
    """Return how far an algorithm is from a log of hits."""
    counted, exact = Windows(RATE, algorithm), list[float]()
    hits = too_many = too_few = 0
    error = 0.0
    for now in traffic(random.Random(1), windows * RATE.seconds):
        begin = now - RATE.seconds
        logged = since(counted.log[-2 * RATE.count :], begin)
        error += abs(counted.usage(now).used - logged)
        passed = counted.hit(now)
        hits += 1
        too_many += passed and logged >= RATE.count
        too_few += not passed and logged < RATE.count
        if since(exact[-RATE.count :], begin) < RATE.count:
            exact.append(now)
    return Accuracy(
        error / hits / RATE.count * 100,
        too_many / hits * 100,
        too_few / hits * 100,
        largest(counted.log, RATE.seconds) / RATE.count,
        len(counted.log) / len(exact),
    )


def table() -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield "| Hits | Algorithm | Error | Let through | Refused | Most | Total |"
    yield "|---|---|---|---|---|---|---|"
    for name, traffic in TRAFFIC.items():
        for algorithm in ALGORITHMS:
            found = compare(algorithm, traffic)
            percents = (found.error_percent, found.let_through_percent, found.refused_percent)
            figures = [f"{each:.1f} %" for each in percents]
            figures += [f"{each:.2f}" for each in (found.most, found.total)]
            yield f"| {name} | {algorithm} | {' | '.join(figures)} |"


def main() -> None:
    print(f"{RATE}, {WINDOWS} windows\n")
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
