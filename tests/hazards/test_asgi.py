"""Event loops: several at once, short-lived ones, cancelled tasks, nested sync and async calls."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import BridgeMisuse, OutcomeUnknown
from tests.hazards.conftest import MakeOwn
from tests.support.cluster import connections
from tests.support.scripts import Ended

T = TypeVar("T")


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    return eventually(condition, time.monotonic() + seconds)


def in_a_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function outside the main thread, whose event loop belongs to pytest."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


async def soon_in(condition: Callable[[], bool]) -> bool:
    """Call soon() in a thread, without blocking the running loop."""
    return await asyncio.get_running_loop().run_in_executor(None, soon, condition)


def test_several_loops_share_one_connection(own_server: NatsServer, make_own: MakeOwn) -> None:
    async def visit(number: int) -> None:
        cache = make_own()
        keys = [f"{number}-{i}" for i in range(50)]
        await asyncio.gather(*(cache.aset(key, key) for key in keys))
        assert await asyncio.gather(*(cache.aget(key) for key in keys)) == keys

    def work(number: int) -> None:
        for _ in range(3):
            asyncio.run(visit(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert connections(own_server) == 1


def test_nested_sync_and_async_calls_share_one_connection(
    own: NatsCache, own_server: NatsServer
) -> None:
    @async_to_sync
    async def innermost() -> object:
        return await own.aget("key")

    def view() -> object:
        own.set("from-sync", 1)
        return innermost(), own.get("from-sync")

    async def outermost() -> object:
        return await sync_to_async(view)(), await own.aget("from-sync")

    assert in_a_thread(async_to_sync(outermost)) == (("value", 1), 1)
    assert in_a_thread(asyncio.run, outermost()) == (("value", 1), 1)
    assert connections(own_server) == 1


async def test_a_thousand_concurrent_gets_share_one_connection(
    own: NatsCache, own_server: NatsServer
) -> None:
    await own.aset_many({str(i): i for i in range(1000)})
    found = await asyncio.gather(*(own.aget(str(i)) for i in range(1000)))
    assert found == list(range(1000))
    assert connections(own_server) == 1
    assert own.session.waiters == 0


@pytest.mark.usefixtures("without_pings")
async def test_a_cancelled_task_leaves_no_waiter(own_server: NatsServer, make_own: MakeOwn) -> None:
    cache = make_own(REQUEST_TIMEOUT=600)
    await cache.aset_many({str(i): i for i in range(100)})
    own_server.pause()
    single = [asyncio.ensure_future(cache.aget(str(i))) for i in range(50)]
    several = [asyncio.ensure_future(cache.aget_many([str(i), "key"])) for i in range(25)]
    listing = [asyncio.ensure_future(cache.akeys("*")) for _ in range(25)]
    tasks = [*single, *several, *listing]
    assert await soon_in(lambda: cache.session.waiters == 100)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    # A listing's consumer is deleted once the server has answered that it is created.
    assert await soon_in(lambda: cache.session.waiters == len(listing))
    own_server.resume()  # the late answers have no waiter and are dropped
    assert await soon_in(lambda: cache.session.waiters == 0)
    assert await asyncio.gather(*(cache.aget(str(i)) for i in range(100))) == list(range(100))


async def test_a_task_cancelled_before_connecting_leaves_no_waiter(make_own: MakeOwn) -> None:
    cache = make_own()
    tasks = [asyncio.ensure_future(cache.aget("key")) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert await cache.aget("key") is None
    assert cache.session.waiters == 0


def test_an_interrupted_thread_leaves_no_waiter(
    script: Callable[..., Ended], own_server: NatsServer
) -> None:
    ended = script(
        """
import os, signal, threading, time
from django_nats.client.transport import connection
from django_nats.devserver.files import eventually
connection.PING_INTERVAL_S = 60.0  # the connection must not end meanwhile
cache.set("key", 1)
print("ready", flush=True)
sys.stdin.readline()

def interrupt():
    assert eventually(lambda: cache.session.waiters == 1, time.monotonic() + 60)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    cache.get("key")
except KeyboardInterrupt:
    print(eventually(lambda: cache.session.waiters == 0, time.monotonic() + 60))
""",
        when_ready=lambda _: own_server.pause(),
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "True", "")


async def test_a_sync_call_works_on_an_event_loops_thread(own: NatsCache) -> None:
    own.set("sync", 1)
    assert own.get("sync") == 1 == await own.aget("sync")


def test_a_sync_call_on_the_background_thread_is_refused(own: NatsCache) -> None:
    raised: list[BaseException] = []

    def ask() -> None:
        for call in (lambda: own.get("key"), process.close):
            try:
                call()
            except BaseException as error:
                raised.append(error)

    loop_thread.call(ask)
    assert soon(lambda: len(raised) == 2)
    assert [type(error) for error in raised] == [BridgeMisuse] * 2
    assert own.get("key") == "value"


def test_an_async_call_works_on_the_background_loop(own: NatsCache) -> None:
    found: list[object] = []

    async def ask() -> None:
        found.append(await own.aget("key"))

    tasks: list[object] = []
    loop_thread.call(lambda: tasks.append(asyncio.ensure_future(ask())))
    assert soon(lambda: found == ["value"])


def test_a_finished_loop_is_garbage_collected(own: NatsCache) -> None:
    async def ask() -> weakref.ref[asyncio.AbstractEventLoop]:
        await asyncio.gather(*(own.aget("key") for _ in range(20)))
        return weakref.ref(asyncio.get_running_loop())

    seen = [in_a_thread(asyncio.run, ask()) for _ in range(5)]

    def all_are_gone() -> bool:
        gc.collect()
        return [each() for each in seen] == [None] * 5

    assert soon(all_are_gone)  # the background thread may still be handling the last answer


@pytest.mark.usefixtures("without_pings")
def test_a_loop_closed_while_tasks_wait_is_garbage_collected(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    """Answers for a closed loop must neither keep it alive nor disturb other callers."""
    cache = make_own(REQUEST_TIMEOUT=600)
    cache.set("key", "value")
    own_server.pause()
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(cache.aget("key")) for _ in range(5)]
    for task in waiting:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # pending tasks are intended
    assert loop.run_until_complete(soon_in(lambda: cache.session.waiters == 5))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    own_server.resume()
    assert cache.get("key") == "value"
    assert soon(lambda: cache.session.waiters == 0)
    seen = weakref.ref(loop)
    del loop, waiting, task

    def is_gone() -> bool:
        gc.collect()
        return seen() is None

    assert soon(is_gone)


@pytest.mark.usefixtures("without_pings")
def test_closing_fails_waiting_calls_and_later_calls_reconnect(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    """Every waiting thread and task gets OutcomeUnknown; the next call opens a new connection."""
    cache = make_own(REQUEST_TIMEOUT=600)
    cache.set("key", "value")
    own_server.pause()

    def wait() -> None:
        with pytest.raises(OutcomeUnknown):
            cache.get("key")

    def await_() -> None:
        with pytest.raises(OutcomeUnknown):
            asyncio.run(cache.aget("key"))

    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(each) for each in (wait, await_) * 3]
        assert soon(lambda: cache.session.waiters == 6)
        process.close()
        for each in waiting:
            each.result(60)
    own_server.resume()
    assert cache.get("key") == "value"
