"""Many threads share one connection, and each gets its own answers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.hazards.conftest import MakeOwn
from tests.support.cluster import connections

THREADS = 64


def test_64_threads_on_one_connection(own_server: NatsServer, make_own: MakeOwn) -> None:
    together = threading.Barrier(THREADS)

    def work(number: int) -> int:
        cache = make_own(REQUEST_TIMEOUT=60)  # as Django does: an object for every thread
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


def test_threads_that_race_to_open_the_first_connection(
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


def test_an_error_is_its_callers_alone(own: NatsCache, own_server: NatsServer) -> None:
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
