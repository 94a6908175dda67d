"""What listing a large bucket takes, and what it does to sets beside it.

    python -m tests.benchmarks.iter_keys [keys]

Starts nats-server on 127.0.0.1 and sets a million keys unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tracemalloc
from time import perf_counter

from django.conf import settings

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer

CHUNK = 20_000

# In a process of its own, which does not share Python's lock with the listing. It sets until it
# is told to stop, and prints how long the slowest one took.
SETTER = """
import json, sys, threading
from time import perf_counter
from django.conf import settings
settings.configure()
from django_nats.cache import NatsCache
cache = NatsCache(*json.loads(sys.argv[1]))
cache.set("beside", 0)
print("ready", flush=True)
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), done.set()), daemon=True).start()
slowest = 0.0
while not done.wait(0.001):
    begun = perf_counter()
    cache.set("beside", begun)
    slowest = max(slowest, perf_counter() - begun)
print(slowest)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", nargs="?", type=int, default=1_000_000)
    count = parser.parse_args().keys
    settings.configure(SECRET_KEY="benchmark")
    with NatsServer() as server:
        params = {"OPTIONS": {"BUCKET": "benchmark", "TOKEN": server.token}}
        cache = NatsCache(server.url, params)
        fill(cache, count)
        with subprocess.Popen(
            [sys.executable, "-c", SETTER, json.dumps([server.url, params])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as setter:
            assert setter.stdout is not None
            setter.stdout.readline()
            first, whole = list_all(cache, count)
            slowest = float(setter.communicate("stop\n")[0])
        tracemalloc.start()
        list_all(cache, count)
        _, peak = tracemalloc.get_traced_memory()
        bridge.close()
    print(f"first key after    {first * 1000:8.1f} ms")
    print(f"all keys after     {whole * 1000:8.0f} ms")
    print(f"slowest set beside {slowest * 1000:8.1f} ms")
    print(f"peak of memory     {peak / 1e6:8.2f} MB")


def fill(cache: NatsCache, count: int) -> None:
    begun = perf_counter()
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        assert not cache.set_many({f"key:{number}": number for number in numbers}, None)
    print(f"{count:,} keys set in {perf_counter() - begun:.1f} s")


def list_all(cache: NatsCache, count: int) -> tuple[float, float]:
    """Seconds until the first key, and until the last."""
    begun = perf_counter()
    keys = cache.iter_keys()
    next(keys)
    first = perf_counter() - begun
    seen = 1 + sum(1 for _ in keys)
    assert seen >= count
    return first, perf_counter() - begun


if __name__ == "__main__":
    main()
