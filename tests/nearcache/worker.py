"""A process that runs operations on a cache and reports their outcomes.

It reads lines of JSON from stdin: lists of operations, each list for a separate thread, or for an
event loop. It writes lines of JSON to stdout: each operation, when it began and ended, and its
result or error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings


def outcome(began: float, op: list[Any], result: Any) -> dict[str, Any]:
    error = type(result).__name__ if isinstance(result, BaseException) else None
    returned = None if error else result
    ended = time.monotonic()
    return {"op": op, "began": began, "ended": ended, "returned": returned, "error": error}


def in_a_thread(cache: Any, ops: list[list[Any]]) -> list[dict[str, Any]]:
    done = []
    for op in ops:
        name, *arguments = op
        began = time.monotonic()
        try:
            extra = EXTRA_OPERATIONS.get(name)
            result = extra(cache, *arguments) if extra else getattr(cache, name)(*arguments)
        except Exception as error:
            result = error
        done.append(outcome(began, op, result))
    return done


async def in_a_loop(cache: Any, ops: list[list[Any]]) -> list[dict[str, Any]]:
    done = []
    for op in ops:
        began = time.monotonic()
        try:
            result = await getattr(cache, f"a{op[0]}")(*op[1:])
        except Exception as error:
            result = error
        done.append(outcome(began, op, result))
    return done


def poll(cache: Any, key: str, last: Any, seconds: float) -> Any:
    """Read a key until it has the value ``last``, or for ``seconds``. Return its value."""
    end = time.monotonic() + seconds
    while (found := cache.get(key)) != last and time.monotonic() < end:
        time.sleep(0.01)
    return found


def survey(cache: Any, prefix: str, count: int) -> dict[str, float]:
    """Read ``count`` keys once copies are served. Return when each value was last read."""
    end = time.monotonic() + 5
    while cache.near.find(cache.make_key("first")) is None and time.monotonic() < end:
        pass  # a request would wait until everything the server has sent has been read
    seen: dict[str, float] = {}
    for number in range(count):
        asked = time.monotonic()
        seen[str(cache.get(f"{prefix}{number}"))] = asked
    return seen


def serves(cache: Any, key: str) -> bool:
    """Return True if copies are made and served."""
    cache.get(key)
    return cache.near.find(cache.make_key(key)) is not None


def learn_the_time(cache: Any) -> bool:
    """Estimate the server's clock. Return True if the estimate is right.

    It is wrong if the machine stalled between request and reply.
    """
    bucket = cache.bucket
    bucket.clock.due = 0
    cache.ttl("first")  # ttl() never reads copies
    return bool(abs(bucket.clock.offset - (time.time() - time.monotonic())) < 0.005)


EXTRA_OPERATIONS: dict[str, Any] = {
    "poll": poll,
    "survey": survey,
    "serves": serves,
    "learn_the_time": learn_the_time,
}


def main() -> None:
    parameters, mutation = json.loads(sys.argv[1])
    settings.configure(SECRET_KEY="only-for-tests")
    from django_nats.cache import NatsCache

    exec(mutation, {})
    cache = NatsCache(*parameters)
    with ThreadPoolExecutor(8) as pool:
        while line := sys.stdin.readline():
            programs = json.loads(line)
            running = [pool.submit(in_a_thread, cache, ops) for ops in programs["threads"]]
            if programs["loop"]:
                running.append(pool.submit(asyncio.run, in_a_loop(cache, programs["loop"])))
            print(json.dumps([each for one in running for each in one.result()]), flush=True)


if __name__ == "__main__":
    main()
