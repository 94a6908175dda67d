"""A lone caller uses the socket itself. In all other cases the loop reads and writes."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import nats
import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.transport import connection, shared_socket
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.shared_socket import SharedSocket
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import Unavailable
from tests.client.transport.lone_caller.conftest import _PATIENCE, Watched, alone, loops_switches
from tests.conftest import PATIENT, MakeCache
from tests.support.certificates import Authority
from tests.support.proxy import Proxy

MANY = 100


# Alone ---------------------------------------------------------------------------------------


@alone
def test_a_lone_caller_does_not_wake_the_loop(
    patient: None, watched: Watched, cache: NatsCache
) -> None:

    def is_left_asleep() -> bool:
        watched.begin()
        before = loops_switches()
        for _ in range(MANY):
            cache.set("key", "value")
            assert cache.get("key") == "value"
        # Most of 2 * MANY: the loop handles the pings of both sides.
        return (
            watched.readers[threading.get_ident()] > 1.5 * MANY
            and sum(watched.asked.values()) < MANY / 2
            and loops_switches() - before < MANY / 2
        )

    # Not every time: a loop that was woken by a ping wakes repeatedly while a slow machine delays
    # the caller. If every call woke the loop, it would never stay asleep.
    assert eventually(is_left_asleep, time.monotonic() + _PATIENCE), watched.asked


@alone
def test_a_lone_task_writes_on_its_own_thread(watched: Watched, cache: NatsCache) -> None:
    watched.begin()

    async def use() -> None:
        for _ in range(MANY):
            assert await cache.aget("key") == "value"

    asyncio.run(use())
    assert watched.asked["send"] < MANY / 2
    assert watched.readers.keys() == {loop_thread.ident}


@alone
async def test_the_loop_writes_and_reads_for_several_callers(
    server: NatsServer, watched: Watched, cache: NatsCache
) -> None:
    """One request that waits for a slow answer is enough."""
    service = await nats.connect(server.url, token=server.token, connect_timeout=60)
    waiting: list[Any] = []
    asked = asyncio.Event()

    async def hold(message: Any) -> None:
        waiting.append(message)
        asked.set()

    await service.subscribe("slow", cb=hold)
    await service.flush()
    await service.flush()

    def steps() -> Steps[Any]:
        return (yield Request(Lane("slow", _PATIENCE), "slow"))

    slow = asyncio.ensure_future(drivers.arun(cache.session, steps()))
    await asked.wait()
    watched.begin()
    for _ in range(MANY):
        assert cache.get("key") == "value"
    assert watched.readers.keys() == {loop_thread.ident}
    assert watched.asked["send"] >= MANY
    await waiting[0].respond(b"at last")
    assert (await slow).payload == b"at last"
    await service.close()


@pytest.mark.usefixtures("without_pings")
@alone
def test_a_slow_answer_is_left_to_the_loop(
    server: NatsServer, watched: Watched, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop handles its timeout, since a caller in poll() does not."""
    left = threading.Event()
    end_reading = SharedSocket.end_reading

    def leave(shared: SharedSocket, reader: Any) -> None:
        end_reading(shared, reader)
        left.set()

    with Proxy(server.port) as proxy, ThreadPoolExecutor(1) as pool:
        cache = make_cache(location=proxy.url)
        cache.set("key", "value")
        watched.begin()
        monkeypatch.setattr(SharedSocket, "end_reading", leave)
        proxy.freeze()
        found = pool.submit(cache.get, "key")
        assert left.wait(_PATIENCE)
        proxy.thaw()
        assert found.result(_PATIENCE) == "value"
        assert loop_thread.ident in watched.readers
        proxy.freeze()
        cache.bucket.stream.lanes.reads.timeout = 0.3
        with pytest.raises(Unavailable):
            cache.get("key")
        cache.bucket.stream.lanes.reads.timeout = 2
        proxy.thaw()
        process.close()


def test_large_values_are_sent_and_received(cache: NatsCache) -> None:
    """They are larger than one read, and larger than a caller may write itself."""
    for size in (shared_socket.PIECE_BYTES - 500, shared_socket.PIECE_BYTES, 1_000_000):
        value = secrets.token_bytes(size)
        cache.set("large", value)
        assert cache.get("large") == value
        assert cache.get_many(["large", "key"]) == {"large": value, "key": "value"}


def test_a_request_that_is_refused_does_not_wait_for_an_answer(
    cache: NatsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_socket, "READ_PATIENCE_S", 3600.0)
    with pytest.raises(ValueError, match="max_payload"):
        cache.set("key", secrets.token_bytes(cache.session.max_payload))
    assert cache.get("key") is None


# Not shared ----------------------------------------------------------------------------------


def use(cache: NatsCache) -> None:
    """Store and read values in a thread and in tasks, small ones and large ones."""

    async def ause() -> None:
        await asyncio.gather(*(cache.aset(f"a-{each}", each) for each in range(20)))
        found = await asyncio.gather(*(cache.aget(f"a-{each}") for each in range(20)))
        assert found == list(range(20))

    cache.set("key", "x" * 500_000)
    assert cache.get("key") == "x" * 500_000
    asyncio.run(ause())
    assert cache.session.waiters == 0


def test_without_epoll_the_loop_reads_and_writes(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, make_cache: MakeCache
) -> None:
    monkeypatch.setattr(connection, "AVAILABLE", False)
    cache = make_cache()
    use(cache)
    assert cache.session._connection is not None
    assert cache.session._connection._shared is None
    assert watched.readers.keys() == {loop_thread.ident}


def test_with_tls_the_loop_reads_and_writes(loop: None, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "127.0.0.1")
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    with NatsServer(config=config) as server:
        options = {"BUCKET": "tls", "TOKEN": server.token, "TLS": {"CA": authority.ca}, **PATIENT}
        cache = NatsCache(server.url.replace("nats:", "tls:"), {"OPTIONS": options})
        use(cache)
        assert cache.session._connection is not None
        assert cache.session._connection._shared is None
        assert len(cache.session._connection.descriptors()) == 1
        process.close()


# The order of bytes --------------------------------------------------------------------------


class Partial:
    """A patch that makes the system accept only a part of the data a caller sends, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.random = Random(seed)
        self.cut = 0
        send = SharedSocket.send

        def some(shared: SharedSocket, data: bytes, taken: list[int]) -> None:
            most = self.random.choice([0, 1, 10, 100, len(data)])
            self.cut += most < len(data)
            send(shared, data[:most], taken)

        monkeypatch.setattr(SharedSocket, "send", some)


@alone
@pytest.mark.usefixtures("without_pings")
@pytest.mark.parametrize("seed", range(2))
def test_bytes_never_interleave(
    monkeypatch: pytest.MonkeyPatch, loop: None, make_cache: MakeCache, seed: int
) -> None:
    """Threads, tasks and pings send small and large frames, cut anywhere, alone or together.

    After one misplaced byte, the server closes the connection, or an answer is wrong.
    """
    partial = Partial(monkeypatch, seed)
    cache = make_cache()
    cache.set("key", "value")
    same = cache.session._connection
    assert same is not None
    stopping = threading.Event()
    turns: Counter[str] = Counter()

    def goes_on(who: object) -> bool:
        turns[str(who)] += 1
        return not stopping.is_set()

    def value(random: Random) -> bytes:
        return random.randbytes(random.choice([1, 10, 100, 1000, 60_000, 200_000]))

    def work(number: int) -> int:
        random, turn = Random(f"{seed}-{number}"), 0
        while goes_on(number):
            turn += 1
            mine = value(random)
            cache.set(f"thread-{number}", mine)
            assert cache.get(f"thread-{number}") == mine
            assert cache.get(f"missing-{number}-{turn}") is None
            time.sleep(random.choice([0, 0, 0.001, 0.01]))
            # real time: the others are alone for a while
        return turn

    async def awork(number: int) -> int:
        random, turn = Random(f"{seed}-a-{number}"), 0
        while goes_on(f"a-{number}"):
            turn += 1
            mine = value(random)
            await cache.aset(f"task-{number}", mine)
            assert await cache.aget(f"task-{number}") == mine
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))  # real time: as above
        return turn

    async def tasks(number: int) -> int:
        return sum(await asyncio.gather(*(awork(number * 10 + each) for each in range(2))))

    def ping() -> int:
        random, turn = Random(f"{seed}-p"), 0
        while goes_on("p"):
            turn += 1
            loop_thread.call(same._sweep.ask_for_sign_of_life)
            time.sleep(random.choice([0.001, 0.01]))  # real time: as above
        return turn

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work, number) for number in range(3)]
        working += [pool.submit(asyncio.run, tasks(number)) for number in range(2)]
        working.append(pool.submit(ping))
        try:
            # Each of them has run several times, and many frames were cut.
            assert eventually(
                lambda: (
                    any(each.done() for each in working)
                    or (partial.cut > 50 and len(turns) == 8 and min(turns.values()) > 10)
                ),
                time.monotonic() + 2 * _PATIENCE,
            ), turns
        finally:
            stopping.set()
        assert all(each.result(_PATIENCE) for each in working)
    assert partial.cut > 10
    assert cache.session._connection is same
    assert cache.session.waiters == 0


@pytest.mark.usefixtures("without_pings")
@alone
def test_the_rest_of_a_callers_write_is_not_overtaken(loop: None) -> None:
    """The caller no longer waits, but the transport still has to send the rest of its frame."""
    with NatsServer() as server:
        options = {"BUCKET": "own", "TOKEN": server.token, **PATIENT, "REQUEST_TIMEOUT": 60}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.set("key", "value")
        same = cache.session._connection
        assert same is not None
        transport = same._transport._io_writer.transport

        def holds_bytes() -> bool:
            return bool(transport.get_write_buffer_size())

        async def leave_behind() -> None:
            tasks = [asyncio.ensure_future(cache.aset("big", "x" * 1_000_000)) for _ in range(15)]
            await asyncio.sleep(0)
            give_up = time.monotonic() + _PATIENCE
            assert await asyncio.to_thread(eventually, holds_bytes, give_up)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        server.pause()
        asyncio.run(leave_behind())
        assert eventually(lambda: cache.session.waiters == 0, time.monotonic() + _PATIENCE)
        assert holds_bytes()
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(cache.get, "key")
            assert eventually(lambda: cache.session.waiters == 1, time.monotonic() + _PATIENCE)
            server.resume()
            assert found.result(_PATIENCE) == "value"
        assert cache.session._connection is same
        process.close()


@alone
def test_the_loop_waits_for_a_full_socket(cache: NatsCache) -> None:
    """The system itself says that the socket is full."""
    same = cache.session._connection
    assert same is not None
    assert same._shared is not None
    same._shared._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    value = secrets.token_bytes(50_000)
    for _ in range(20):
        cache.set("large", value)
        assert cache.get("large") == value
    assert cache.session._connection is same
