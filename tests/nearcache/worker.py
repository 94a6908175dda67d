"""A process that uses a cache as it is told to, and writes down what came of it.

Lines of JSON come in on stdin: lists of operations, each list for a thread of its own, or for an
event loop. Lines of JSON go out: what was done, when it began and ended, and what it returned.
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
            own = OWN.get(name)
            result = own(cache, *arguments) if own else getattr(cache, name)(*arguments)
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
    """Read a key until it has a value, or for so long; what it had in the end."""
    end = time.monotonic() + seconds
    while (found := cache.get(key)) != last and time.monotonic() < end:
        time.sleep(0.01)
    return found


def survey(cache: Any, prefix: str, count: int) -> dict[str, float]:
    """Read that many keys once copies are served; when each value was last asked for."""
    end = time.monotonic() + 5
    while cache.near.find(cache.make_key("first")) is None and time.monotonic() < end:
        pass  # to ask the server would be to wait until all that it had sent has been read
    seen: dict[str, float] = {}
    for number in range(count):
        asked = time.monotonic()
        seen[str(cache.get(f"{prefix}{number}"))] = asked
    return seen


def serves(cache: Any, key: str) -> bool:
    """Whether copies are made, and served."""
    cache.get(key)
    return cache.near.find(cache.make_key(key)) is not None


OWN: dict[str, Any] = {"poll": poll, "survey": survey, "serves": serves}


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
