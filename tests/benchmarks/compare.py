"""One backend beside others: p50 of get and set, and the throughput of 100 concurrent aget.

    python -m tests.benchmarks.compare [--rounds N]

Starts nats-server and redis-server (from PATH) on 127.0.0.1, measures the contestants in turn,
round after round in one process, and prints the median of the rounds. Values have 100 bytes.
Needs redis, hiredis and django-redis; DJANGO_NATS_LOOP=asyncio measures without uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import django
from django.conf import settings

from django_nats.devserver import NatsServer

CALLS = 2000
CONCURRENT = 100
ASYNC_CALLS = 4000
VALUE = "x" * 100


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def configure(nats: NatsServer, redis: str) -> None:
    settings.configure(
        SECRET_KEY="benchmark",
        CACHES={
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "django-nats": {
                "BACKEND": "django_nats.cache.NatsCache",
                "LOCATION": nats.url,
                "OPTIONS": {"TOKEN": nats.token, "BUCKET": "compare"},
            },
            "Django RedisCache": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": redis,
            },
            "django-redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis},
        },
    )
    django.setup()


def p50(call: Callable[[], Any]) -> float:
    """Median microseconds of a call."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


async def throughput(cache: Any) -> float:
    """Calls of aget a second, CONCURRENT at a time."""

    async def reader() -> None:
        for _ in range(ASYNC_CALLS // CONCURRENT):
            if await cache.aget("key") != VALUE:
                raise RuntimeError("a wrong value was read")

    await cache.aset("key", VALUE)
    start = time.perf_counter()
    await asyncio.gather(*(reader() for _ in range(CONCURRENT)))
    rate = ASYNC_CALLS / (time.perf_counter() - start)
    await cache.aclose()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with NatsServer() as nats, redis_server() as redis:
        configure(nats, redis)
        from django.core.cache import caches

        names = [alias for alias in settings.CACHES if alias != "default"]
        figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                cache = caches[name]
                cache.set("key", VALUE)
                if cache.get("key") != VALUE:
                    raise RuntimeError(f"{name} read a wrong value")
                get = p50(lambda cache=cache: cache.get("key"))
                put = p50(lambda cache=cache: cache.set("key", VALUE))
                figures[name].append((get, put, asyncio.run(throughput(cache))))
        print(f"{'':20}{'get p50 µs':>12}{'set p50 µs':>12}{'100 aget/s':>12}")
        for name, rows in figures.items():
            get, put, rate = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"{name:20}{get:12.0f}{put:12.0f}{rate:12.0f}")


if __name__ == "__main__":
    main()
