"""A caller that is alone writes and reads for itself; in company, and in trouble, the loop does."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import nats
import pytest

import django_nats.client
from django_nats.cache import NatsCache
from django_nats.client import bridge, connection, shared
from django_nats.client.connection import Connection
from django_nats.client.session import Session
from django_nats.client.shared import SharedSocket
from django_nats.client.steps import Lane, Request, Steps
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import Unavailable
from tests.conftest import MakeCache
from tests.support.certificates import Authority
from tests.support.interrupting import interrupted
from tests.support.proxy import Proxy

T = TypeVar("T")

alone = pytest.mark.skipif(not shared.AVAILABLE, reason="the loop does it all without epoll")

MANY = 100
_PATIENCE = 10.0  # seconds until something that hangs has failed


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The bridge's thread anew, on a loop of either kind."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    monkeypatch.setenv("DJANGO_NATS_LOOP", request.param)
    bridge.close()
    yield
    bridge.close()


class Watched:
    """Which thread reads, and how often the loop is asked for anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.readers: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        received = Connection._received

        def noted(connection: Connection, data: bytes) -> None:
            self.readers[threading.get_ident()] += 1
            received(connection, data)

        monkeypatch.setattr(Connection, "_received", noted)
        for kind, name in ((SharedSocket, "_readable"), (Session, "_flush"), (Connection, "send")):
            self._count(monkeypatch, kind, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        original = getattr(kind, name)

        def counted(*args: Any) -> Any:
            self.asked[name] += 1
            return original(*args)

        monkeypatch.setattr(kind, name, counted)

    def begin(self) -> None:
        self.readers.clear()
        self.asked.clear()


@pytest.fixture
def watched(loop: None, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture
def cache(loop: None, watched: Watched, make_cache: MakeCache) -> NatsCache:
    cache = make_cache()
    cache.set("key", "value")
    return cache


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers who do not leave the rest to the loop, however slow the machine is."""
    monkeypatch.setattr(shared, "PATIENCE", _PATIENCE)


def loops_switches() -> int:
    """How often the loop's thread has gone to sleep."""
    thread = bridge._thread._thread
    assert thread is not None
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("voluntary_ctxt"))
    return int(line.split()[1])


# Alone ---------------------------------------------------------------------------------------


@alone
def test_alone_a_caller_does_not_wake_the_loop(
    patient: None, watched: Watched, cache: NatsCache
) -> None:
    watched.begin()
    before = loops_switches()
    for _ in range(MANY):
        cache.set("key", "value")
        assert cache.get("key") == "value"
    # Most of 2 * MANY: there are pings of both sides, which are the loop's.
    assert watched.readers[threading.get_ident()] > 1.5 * MANY
    assert sum(watched.asked.values()) < MANY / 2
    assert loops_switches() - before < MANY / 2


@alone
def test_alone_a_task_writes_on_its_own_thread(watched: Watched, cache: NatsCache) -> None:
    watched.begin()

    async def use() -> None:
        for _ in range(MANY):
            assert await cache.aget("key") == "value"

    asyncio.run(use())
    assert watched.asked["send"] < MANY / 2
    assert watched.readers.keys() == {bridge._thread.ident}


@alone
async def test_in_company_the_loop_writes_and_reads(
    server: NatsServer, watched: Watched, cache: NatsCache
) -> None:
    """Company is whoever waits, be it for an answer that takes its time."""
    service = await nats.connect(server.url, token=server.token)
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

    slow = asyncio.ensure_future(bridge.arun(cache.session, steps()))
    await asked.wait()
    watched.begin()
    for _ in range(MANY):
        assert cache.get("key") == "value"
    assert watched.readers.keys() == {bridge._thread.ident}
    assert watched.asked["send"] >= MANY
    await waiting[0].respond(b"at last")
    assert (await slow).payload == b"at last"
    await service.close()


@pytest.mark.usefixtures("without_pings")
@alone
def test_an_answer_that_takes_its_time_is_left_to_the_loop(
    server: NatsServer, watched: Watched, make_cache: MakeCache
) -> None:
    """Which gives up in time: a caller in poll() knows of no timeout."""
    with Proxy(server.port, delay=shared.PATIENCE * 40) as proxy:
        cache = make_cache(location=proxy.url)
        cache.set("key", "value")
        watched.begin()
        assert cache.get("key") == "value"
        assert bridge._thread.ident in watched.readers
        proxy.freeze()
        cache._bucket.reads.timeout = 0.3
        started = time.monotonic()
        with pytest.raises(Unavailable):
            cache.get("key")
        assert time.monotonic() - started < _PATIENCE / 2
        cache._bucket.reads.timeout = 2
        proxy.thaw()
        bridge.close()


def test_large_values_both_ways(cache: NatsCache) -> None:
    """Larger than what is read at once, and than what a caller writes for itself."""
    for size in (shared.PIECE - 500, shared.PIECE, 1_000_000):
        value = secrets.token_bytes(size)
        cache.set("large", value)
        assert cache.get("large") == value
        assert cache.get_many(["large", "key"]) == {"large": value, "key": "value"}


def test_a_request_that_is_refused_does_not_wait_for_an_answer(
    cache: NatsCache, patient: None
) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="max_payload"):
        cache.set("key", secrets.token_bytes(cache.session.max_payload))
    assert time.monotonic() - started < _PATIENCE / 2
    assert cache.get("key") == "value"


# Not shared ----------------------------------------------------------------------------------


def use(cache: NatsCache) -> None:
    """From a thread and from tasks, small and large."""

    async def ause() -> None:
        await asyncio.gather(*(cache.aset(f"a-{each}", each) for each in range(20)))
        found = await asyncio.gather(*(cache.aget(f"a-{each}") for each in range(20)))
        assert found == list(range(20))

    cache.set("key", "x" * 500_000)
    assert cache.get("key") == "x" * 500_000
    asyncio.run(ause())
    assert cache.session.waiters == 0


def test_without_epoll_the_loop_does_it_all(
    monkeypatch: pytest.MonkeyPatch, watched: Watched, make_cache: MakeCache
) -> None:
    monkeypatch.setattr(connection, "AVAILABLE", False)
    cache = make_cache()
    use(cache)
    assert cache.session._connection is not None
    assert cache.session._connection._shared is None
    assert watched.readers.keys() == {bridge._thread.ident}


def test_tls_is_the_transports(loop: None, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "127.0.0.1")
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    with NatsServer(config=config) as server:
        options = {"BUCKET": "tls", "TOKEN": server.token, "TLS": {"CA": authority.ca}}
        cache = NatsCache(server.url.replace("nats:", "tls:"), {"OPTIONS": options})
        use(cache)
        assert cache.session._connection is not None
        assert cache.session._connection._shared is None
        assert len(cache.session._connection.descriptors()) == 1
        bridge.close()


# The order of bytes --------------------------------------------------------------------------


class Partial:
    """Has the system take only some of what a caller sends, or nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.random = Random(seed)
        self.cut = 0
        send = SharedSocket.send

        def some(shared: SharedSocket, data: bytes) -> int:
            most = self.random.choice([0, 1, 10, 100, len(data)])
            self.cut += most < len(data)
            return send(shared, data[:most])

        monkeypatch.setattr(SharedSocket, "send", some)


@alone
@pytest.mark.parametrize("seed", range(2))
def test_bytes_never_interleave(
    monkeypatch: pytest.MonkeyPatch, loop: None, make_cache: MakeCache, seed: int
) -> None:
    """Threads, tasks and pings, often alone and often not; small and large; cut anywhere.

    One byte out of place, and the server closes the connection, or an answer is wrong.
    """
    partial = Partial(monkeypatch, seed)
    cache = make_cache()
    cache.set("key", "value")
    same = cache.session._connection
    assert same is not None
    begun = time.monotonic()

    def goes_on() -> bool:
        past = time.monotonic() - begun
        return past < 0.7 or (partial.cut <= 10 and past < _PATIENCE)

    def value(random: Random) -> bytes:
        return random.randbytes(random.choice([1, 10, 100, 1000, 60_000, 200_000]))

    def work(number: int) -> int:
        random, turn = Random(f"{seed}-{number}"), 0
        while not turn or goes_on():
            turn += 1
            mine = value(random)
            cache.set(f"thread-{number}", mine)
            assert cache.get(f"thread-{number}") == mine
            assert cache.get(f"missing-{number}-{turn}") is None
            time.sleep(random.choice([0, 0, 0.001, 0.01]))  # leaves the others alone
        return turn

    async def awork(number: int) -> int:
        random, turn = Random(f"{seed}-a-{number}"), 0
        while not turn or goes_on():
            turn += 1
            mine = value(random)
            await cache.aset(f"task-{number}", mine)
            assert await cache.aget(f"task-{number}") == mine
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))
        return turn

    async def tasks(number: int) -> int:
        return sum(await asyncio.gather(*(awork(number * 10 + each) for each in range(2))))

    def ping() -> int:
        random, turn = Random(f"{seed}-p"), 0
        while not turn or goes_on():
            turn += 1
            bridge._thread.call(same._sweep.ask_for_sign_of_life)
            time.sleep(random.choice([0.001, 0.01]))
        return turn

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work, number) for number in range(3)]
        working += [pool.submit(asyncio.run, tasks(number)) for number in range(2)]
        working.append(pool.submit(ping))
        assert all(each.result(2 * _PATIENCE) for each in working)
    assert partial.cut > 10
    assert cache.session._connection is same
    assert cache.session.waiters == 0


@alone
def test_what_a_caller_left_behind_is_not_overtaken(loop: None) -> None:
    """Nobody waits any more for what the transport still has to send, and nobody cuts it in two."""
    with NatsServer() as server:
        options = {"BUCKET": "own", "TOKEN": server.token, "REQUEST_TIMEOUT": 60}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.set("key", "value")
        same = cache.session._connection
        assert same is not None

        async def leave_behind() -> None:
            tasks = [asyncio.ensure_future(cache.aset("big", "x" * 1_000_000)) for _ in range(15)]
            await asyncio.wait(tasks, timeout=0.2)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        server.pause()
        asyncio.run(leave_behind())
        assert eventually(lambda: cache.session.waiters == 0, time.monotonic() + _PATIENCE)
        assert same._transport._io_writer.transport.get_write_buffer_size() > 0
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(cache.get, "key")
            assert eventually(lambda: cache.session.waiters == 1, time.monotonic() + _PATIENCE)
            server.resume()
            assert found.result(_PATIENCE) == "value"
        assert cache.session._connection is same
        bridge.close()


@alone
def test_a_socket_that_is_full_is_the_loops_to_wait_for(cache: NatsCache) -> None:
    """By the system's own measure."""
    same = cache.session._connection
    assert same is not None
    assert same._shared is not None
    same._shared._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    value = secrets.token_bytes(50_000)
    for _ in range(20):
        cache.set("large", value)
        assert cache.get("large") == value
    assert cache.session._connection is same


# Interrupted ---------------------------------------------------------------------------------

_CLIENT = str(Path(django_nats.client.__file__).parent)


def within_reason(function: Callable[[], T]) -> T:
    """What a function returns on another thread, which is left behind if it hangs."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    (result,) = results
    return result


@alone
@pytest.mark.parametrize("company", [False, True])
def test_interrupted_anywhere_a_caller_leaves_a_connection_that_works(
    loop: None, make_cache: MakeCache, company: bool
) -> None:
    """At every line of a get, one after the other; what is deaf or stuck would time out."""
    cache = make_cache(OPTIONS={"REQUEST_TIMEOUT": 60})
    cache.set("key", "value")
    stop = threading.Event()

    def others() -> None:
        while not stop.wait(0.0001):
            try:
                assert cache.get("key") == "value"
            except Unavailable:
                pass  # while it is made anew

    def get(at: int) -> str:
        try:
            return interrupted(lambda: cache.get("key"), at, _CLIENT)
        except Unavailable:
            return "while it is made anew"

    def answers() -> bool:
        try:
            return bool(cache.get("key") == "value")
        except Unavailable:
            return False

    at = uninterrupted = 0
    other = threading.Thread(target=others, daemon=True)
    if company:
        other.start()
    while uninterrupted < 5:  # a get that finds company, were it a ping, has fewer lines
        at += 1
        where = within_reason(lambda: get(at))  # noqa: B023
        uninterrupted = 0 if where else uninterrupted + 1
        assert within_reason(lambda: eventually(answers, time.monotonic() + _PATIENCE)), where
    stop.set()
    if company:
        other.join(_PATIENCE)
    assert not other.is_alive()
    assert at > 100
    assert eventually(lambda: cache.session.waiters == 0, time.monotonic() + _PATIENCE)
