"""Many threads share one connection, and each receives its own answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.hazards.conftest import MakeOwn
from tests.support.cluster import connections
from tests.support.scripts import Ended

THREADS = 64


def test_64_threads_share_one_connection(own_server: NatsServer, make_own: MakeOwn) -> None:
    together = threading.Barrier(THREADS)

    def work(number: int) -> int:
        cache = make_own(REQUEST_TIMEOUT=60)  # like Django, which makes one object per thread
        together.wait()
        for turn in range(20):
            mine = {f"{number}-{turn}-{i}": f"{number}:{turn}:{i}" for i in range(5)}
            cache.set_many(mine)
            for key, value in mine.items():
                assert cache.get(key) == value
            assert cache.get_many(mine) == mine
            assert cache.get(f"missing-{number}-{turn}") is None
        cache.close()
        return connections(own_server) if number == 0 else 1

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [1] * THREADS
    assert make_own(REQUEST_TIMEOUT=60).session.waiters == 0


def test_threads_that_race_to_connect_open_one_connection(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    together = threading.Barrier(THREADS)

    def work(number: int) -> object:
        together.wait()
        cache = make_own(REQUEST_TIMEOUT=60)
        cache.set(str(number), number)
        return cache.get(str(number))

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == list(range(THREADS))
    assert connections(own_server) == 1


def test_each_thread_gets_its_own_exception_object(own: NatsCache, own_server: NatsServer) -> None:
    own_server.kill()
    together = threading.Barrier(16)

    def work(_: int) -> BaseException:
        together.wait()
        try:
            own.get("key")
        except Exception as error:
            return error
        raise AssertionError("the server is dead")

    with ThreadPoolExecutor(16) as pool:
        errors = list(pool.map(work, range(16)))
    # Raised in several threads, one object would collect the tracebacks of all of them.
    assert len({id(error) for error in errors}) == 16


@pytest.mark.parametrize(
    ("limit", "lift"),
    [
        ("threading.stack_size(1 << 46)", "threading.stack_size(0)"),
        (
            "before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))",
            "resource.setrlimit(resource.RLIMIT_NOFILE, before)",
        ),
    ],
    ids=["threads", "descriptors"],
)
def test_a_process_out_of_threads_or_descriptors_recovers(
    script: Callable[..., Ended], limit: str, lift: str
) -> None:
    ended = script(f"""
import logging, resource, threading
from django_nats.exceptions import BridgeMisuse, NotSent
logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
print("ready", flush=True)
sys.stdin.readline()
{limit}
for _ in range(2):
    try:
        cache.get("key")
    except NotSent as error:
        print(isinstance(error, BridgeMisuse), "cannot be" in str(error))
{lift}
cache.set("key", 1)
print(cache.get("key"))
""")
    # asyncio complains on stderr about its half-made loop.
    assert ended.stdout.splitlines() == ["ERROR", "False True", "False True", "1"], ended
    assert ended.status == 0
