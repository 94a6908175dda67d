"""The nats-py clients of connection() and run(), with several event loops and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.test import override_settings
from nats.aio.client import Client

from django_nats import connection, run
from django_nats.client import process
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support.cluster import connections


@pytest.fixture
def project(own_server: NatsServer) -> Iterator[None]:
    options = {"TOKEN": own_server.token, **PATIENT}
    entry = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": own_server.url}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": options}}):
        yield
        process.close()


async def ask(nc: Client, subject: str) -> bytes:
    sub = await nc.subscribe(subject)
    await nc.publish(subject, subject.encode())
    data = (await sub.next_msg(60)).data
    await sub.unsubscribe()
    return data


async def block(subject: str) -> bytes:
    async with connection() as nc:
        return await ask(nc, subject)


@pytest.mark.usefixtures("project")
def test_blocks_work_on_several_loops_at_once(own_server: NatsServer) -> None:
    def work(number: int) -> None:
        for turn in range(3):
            assert asyncio.run(block(f"a.{number}.{turn}")) == f"a.{number}.{turn}".encode()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert eventually(lambda: connections(own_server) == 0)


@pytest.mark.usefixtures("project")
def test_a_block_that_its_loop_abandons_is_closed(own_server: NatsServer) -> None:
    """asyncio.run() cancels the tasks that are left at its end."""
    tasks = []

    async def listen(opened: asyncio.Event) -> None:
        async with connection() as nc:
            await nc.subscribe("a")
            opened.set()
            await asyncio.Event().wait()

    async def main() -> None:
        opened = asyncio.Event()
        tasks.append(asyncio.ensure_future(listen(opened)))
        await opened.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, main()).result()
    assert tasks[0].cancelled()
    assert eventually(lambda: connections(own_server) == 0)


@pytest.mark.usefixtures("project")
def test_async_views_share_one_connection_through_run(own_server: NatsServer) -> None:
    async def view(number: int) -> bytes:
        return await sync_to_async(run, thread_sensitive=False)("default", ask, f"b.{number}")

    async def requests() -> list[bytes]:
        return await asyncio.gather(*map(view, range(20)))

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(async_to_sync(requests)).result()
    assert answers == [f"b.{number}".encode() for number in range(20)]
    assert connections(own_server) == 1


@pytest.mark.usefixtures("project")
def test_functions_of_many_threads_run_at_once() -> None:
    """A function waits for those of other threads, which it could not do if they took turns."""
    waiting: set[int] = set()
    everybody: list[asyncio.Event] = []

    async def meet(nc: Client, number: int) -> None:
        if not everybody:
            everybody.append(asyncio.Event())
        waiting.add(number)
        if len(waiting) == 16:
            everybody[0].set()
        await everybody[0].wait()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: run("default", meet, number, timeout=600), range(16)))


async def from_thread(nc: Client) -> int:
    """Call sync code as Django's async ORM does."""
    return await sync_to_async(lambda: 5)()


@pytest.mark.usefixtures("project")
def test_a_function_called_from_a_sync_view_under_asgi_can_call_sync_code() -> None:
    """Otherwise asgiref would run it on the view's thread, which waits for the function."""

    async def request() -> int:
        async with ThreadSensitiveContext():
            return await sync_to_async(run)("default", from_thread, timeout=60)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, request()).result() == 5


@pytest.mark.usefixtures("project")
def test_a_function_called_below_async_to_sync_can_call_sync_code() -> None:
    async def request() -> int:
        return await sync_to_async(run)("default", from_thread, timeout=60)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(async_to_sync(request)).result() == 5
