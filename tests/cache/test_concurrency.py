"""Concurrent operations lose no write, and only one of several competitors succeeds."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from django_nats.exceptions import OutcomeUnknown
from tests.cache.test_timeouts import eventually
from tests.conftest import MakeCache
from tests.support.process import run_in_processes
from tests.support.proxy import Proxy

ROUNDS = 40


def in_threads(count: int, work: Callable[[], None]) -> None:
    begin = threading.Barrier(count)

    def run() -> None:
        begin.wait()
        work()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_concurrent_processes_lose_no_increment(server: NatsServer, cache: NatsCache) -> None:
    cache.set("n", 0, 1000)
    code = "print(*[cache.incr('n') for _ in range(500)])"
    totals = [
        int(total)
        for output in run_in_processes(server, cache, code, count=8)
        for total in output.split()
    ]
    assert cache.get("n") == 4000
    assert sorted(totals) == list(range(1, 4001))


async def test_concurrent_tasks_lose_no_increment(cache: NatsCache) -> None:
    await cache.aset("n", 0, 1000)

    async def work() -> list[int]:
        return [await cache.aincr("n") for _ in range(50)]

    totals = itertools.chain(*await asyncio.gather(*(work() for _ in range(8))))
    assert await cache.aget("n") == 400
    assert sorted(totals) == list(range(1, 401))


@pytest.mark.parametrize(
    ("prepare", "race"),
    [
        pytest.param("cache.set(key, 1)", "cache.delete(key)", id="delete"),
        pytest.param("", "cache.add(key, name)", id="add"),
        pytest.param("cache.set(key, 1); cache.delete(key)", "cache.add(key, 1)", id="add again"),
        pytest.param("", "cache.set(key, name, nx=True)", id="nx"),
        pytest.param("", "cache.set(key, name, revision=0)", id="revision"),
    ],
)
def test_only_one_of_several_racing_processes_succeeds(
    server: NatsServer, cache: NatsCache, prepare: str, race: str
) -> None:
    for number in range(ROUNDS):
        exec(prepare, {"cache": cache, "key": f"key-{number}"})
    code = (
        f"import os\nname = os.getpid()\n"
        f"for number in range({ROUNDS}):\n"
        f"    key = f'key-{{number}}'\n"
        f"    print(int({race}))\n"
    )
    outputs = run_in_processes(server, cache, code, count=4)
    winners = [
        sum(map(int, results)) for results in zip(*(each.split() for each in outputs), strict=True)
    ]
    assert winners == [1] * ROUNDS


async def test_only_one_of_several_racing_tasks_succeeds(cache: NatsCache) -> None:
    for number in range(10):
        key = f"key-{number}"
        assert sum(await asyncio.gather(*(cache.aadd(key, each) for each in range(20)))) == 1
        assert sum(await asyncio.gather(*(cache.adelete(key) for _ in range(20)))) == 1
        assert sum(await asyncio.gather(*(cache.aadd(key, each) for each in range(20)))) == 1


def test_the_value_of_the_thread_whose_add_succeeded_is_stored(cache: NatsCache) -> None:
    won: list[str] = []

    def work() -> None:
        name = threading.current_thread().name
        if cache.add("key", name):
            won.append(name)

    in_threads(8, work)
    assert won == [cache.get("key")]


def test_get_or_set_returns_the_same_value_to_every_thread(cache: NatsCache) -> None:
    found: list[str] = []
    in_threads(8, lambda: found.append(cache.get_or_set("key", threading.get_ident)))
    assert len(found) == 8
    assert set(found) == {cache.get("key")}


def test_concurrent_updates_lose_nothing(cache: NatsCache) -> None:
    numbers = itertools.count()

    def work() -> None:
        for number in itertools.islice(numbers, 50):
            cache.update("set", {number}.union, set())

    in_threads(4, work)
    assert cache.get("set") == set(range(200))


async def test_aupdate_loses_nothing_when_its_function_awaits(cache: NatsCache) -> None:
    async def append(value: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [*value, len(value)]

    await asyncio.gather(*(cache.aupdate("list", append, []) for _ in range(40)))
    assert await cache.aget("list") == list(range(40))


def test_update_does_not_repeat_a_write_that_another_client_has_replaced(
    server: NatsServer, make_cache: MakeCache
) -> None:
    """The acknowledgement is lost, and another client changes the stored value meanwhile."""
    other = make_cache()
    other.set("log", ["begun"], None)
    with Proxy(server.port, delay=0) as proxy:
        mine = make_cache(location=proxy.url, OPTIONS={"REQUEST_TIMEOUT": 600.0})
        assert mine.get("log") == ["begun"]

        def append(log: list[str]) -> list[str]:
            proxy.lose = lambda data: True  # from here on no answer arrives
            return [*log, "mine"]

        with ThreadPoolExecutor(1) as pool:
            appending = pool.submit(mine.update, "log", append, timeout=None)
            eventually(lambda: other.get("log") == ["begun", "mine"])
            other.update("log", lambda log: [*log, "other"], timeout=None)
            proxy.cut()
            proxy.lose = lambda data: False
            with pytest.raises(OutcomeUnknown):
                appending.result()
    assert other.get("log") == ["begun", "mine", "other"]
