"""Figures for listing a large bucket: ``python -m tests.benchmarks.iter_keys [keys]``."""

from __future__ import annotations

import argparse
import resource
import secrets
import threading
import tracemalloc
from time import perf_counter

import django
from django.conf import settings

from django_nats.devserver import NatsServer

CHUNK = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", nargs="?", type=int, default=1_000_000)
    count = parser.parse_args().keys
    settings.configure(SECRET_KEY=secrets.token_hex())
    django.setup()
    from django_nats.cache import NatsCache

    with NatsServer() as server:
        options = {"BUCKET": "benchmark", "TOKEN": server.token}
        cache = NatsCache(server.url, {"OPTIONS": options})
        begun = perf_counter()
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            assert not cache.set_many({f"key:{number}": number for number in numbers}, None)
        print(f"{count:,} keys set in {perf_counter() - begun:.1f} s")

        list(cache.iter_keys("key:1"))
        for measured in (False, True):
            _list(cache, count, measured)
        alone = _slowest_set(cache, threading.Event(), 500)
        print(f"slowest of 500 sets while nothing is listed: {alone * 1000:.1f} ms")


def _list(cache: object, count: int, measured: bool) -> None:
    """One listing beside sets: its times, or (which slows it down) the memory it takes."""
    done = threading.Event()
    slowest: list[float] = []
    setter = threading.Thread(target=lambda: slowest.append(_slowest_set(cache, done)))
    setter.start()
    if measured:
        tracemalloc.start()
    begun = perf_counter()
    keys = cache.iter_keys()  # type: ignore[attr-defined]
    next(keys)
    first = perf_counter() - begun
    seen = 1 + sum(1 for _ in keys)
    whole = perf_counter() - begun
    assert seen >= count
    if measured:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak of traced memory {peak / 1e6:.1f} MB, of the process {resident / 1e3:.0f} MB")
    done.set()
    setter.join()
    if not measured:
        print(f"first key after {first * 1000:.0f} ms, all after {whole:.2f} s")
        print(f"slowest set meanwhile: {slowest[0] * 1000:.1f} ms")


def _slowest_set(cache: object, done: threading.Event, most: int | None = None) -> float:
    slowest = 0.0
    number = 0
    while not done.is_set() and number != most:
        begun = perf_counter()
        cache.set("beside", number)  # type: ignore[attr-defined]
        slowest = max(slowest, perf_counter() - begun)
        number += 1
    return slowest


if __name__ == "__main__":
    main()
