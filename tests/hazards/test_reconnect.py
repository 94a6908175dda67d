"""The server dies, stops, comes back: every call ends in time, and says truly what became of it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import NotSent, OutcomeUnknown, Unavailable
from tests.hazards.conftest import TIMEOUT, MakeOwn
from tests.support.ports import free_port
from tests.support.proxy import Proxy

A_VIEW = 1.2 * TIMEOUT
"""Seconds that 20 calls may take in all."""
SLACK = 4.0
"""Seconds that a busy machine may add to what is bounded; a timeout for each of the calls would
be ten and more."""
BACK = 1.0 + SLACK
"""Seconds: the promise is one; a server that is starting may swallow a request."""


def soon(condition: Callable[[], bool], seconds: float = 30) -> bool:
    return eventually(condition, time.monotonic() + seconds)


def answers(cache: NatsCache) -> bool:
    try:
        cache.set("probe", 1)
        return bool(cache.get("probe") == 1)
    except Unavailable:
        return False


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextmanager
def black_hole() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"


def mixed_calls(cache: NatsCache) -> list[type]:
    """What 20 calls of a view come to."""
    outcomes: list[type] = []
    for number in range(20):
        try:
            cache.set(f"view-{number}", number) if number % 2 else cache.get("key")
            outcomes.append(type(None))
        except Exception as error:
            outcomes.append(type(error))
    return outcomes


async def amixed_calls(cache: NatsCache) -> list[type]:
    outcomes: list[type] = []
    for number in range(20):
        try:
            await (cache.aset(f"view-{number}", number) if number % 2 else cache.aget("key"))
            outcomes.append(type(None))
        except Exception as error:
            outcomes.append(type(error))
    return outcomes


def in_a_loop(cache: NatsCache) -> list[type]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, amixed_calls(cache)).result()


VIEWS = pytest.mark.parametrize("view", [mixed_calls, in_a_loop], ids=["sync", "async"])
View = Callable[[NatsCache], list[type]]


# Bounds --------------------------------------------------------------------------------------


def test_dead_from_the_start(make_own: MakeOwn) -> None:
    cache = make_own(f"nats://127.0.0.1:{free_port()}")
    with within(SLACK), pytest.raises(NotSent) as raised:
        cache.get("key")
    assert isinstance(raised.value.__cause__, OSError)
    with within(SLACK):
        for _ in range(100):
            with pytest.raises(NotSent):
                cache.set("key", 1)


def test_an_address_that_never_answers(make_own: MakeOwn) -> None:
    with black_hole() as one, black_hole() as other:
        for location in (one, [one, other]):
            cache = make_own(location, CONNECT_TIMEOUT=0.5)
            with within(0.5 + SLACK), pytest.raises(NotSent):
                cache.get("key")
            with within(SLACK):
                for _ in range(100):
                    with pytest.raises(NotSent):
                        cache.get("key")


def test_one_of_two_servers_is_away(own_server: NatsServer, make_own: MakeOwn) -> None:
    with black_hole() as hole:
        for location in ([hole, own_server.url], [own_server.url, hole]):
            cache = make_own(location, CONNECT_TIMEOUT=1.0)
            with within(1.0 + SLACK):
                cache.set("key", 1)


@pytest.mark.usefixtures("without_pings")
@VIEWS
def test_a_view_while_the_server_is_stopped(
    own: NatsCache, own_server: NatsServer, view: View
) -> None:
    own_server.pause()
    with within(A_VIEW + SLACK):
        outcomes = view(own)
    assert outcomes == [OutcomeUnknown] + [NotSent] * 19
    own_server.resume()
    with within(BACK):
        assert soon(lambda: answers(own))
    assert set(view(own)) == {type(None)}


@VIEWS
def test_a_view_while_the_server_is_dead(
    own: NatsCache, own_server: NatsServer, view: View
) -> None:
    own_server.kill()
    with within(A_VIEW + SLACK):
        assert set(view(own)) <= {NotSent, OutcomeUnknown}


@pytest.mark.usefixtures("without_pings")
def test_a_view_when_the_server_stops_under_load(own: NatsCache, own_server: NatsServer) -> None:
    """With others' answers still coming in while it stops, it is told from a mute stream."""
    stopped = threading.Event()
    slowest: list[float] = []

    def work(_: int) -> None:
        while not stopped.is_set():
            own.get("key")
        started = time.monotonic()
        mixed_calls(own)
        slowest.append(time.monotonic() - started)

    def last_answered(number: int) -> None:
        try:
            work(number)
        except Unavailable:
            mixed_calls(own)

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(last_answered, number) for number in range(8)]
        own_server.pause()
        stopped.set()
        for each in done:
            each.result()
    assert max(slowest, default=0) < A_VIEW + SLACK
    assert not own._bucket.reads.fault


def test_a_handler_of_the_log_may_use_the_cache(own: NatsCache, own_server: NatsServer) -> None:
    """As one that throttles mails: it holds its lock while it waits, and the outage is logged."""

    class Throttled(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(Unavailable):
                own.get("mails")

    handler = Throttled()
    loggers = [logging.getLogger("django_nats"), logging.getLogger("tests.log")]
    own.set("mails", 0)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with ThreadPoolExecutor(1) as pool:
            own_server.pause()
            try:
                pool.submit(loggers[1].warning, "out of order").result(20)
            finally:
                own_server.resume()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@pytest.mark.usefixtures("without_pings")
def test_more_than_a_stopped_server_takes(own_server: NatsServer, make_own: MakeOwn) -> None:
    """What no longer fits into the connection's buffer is not waiting without a bound."""
    cache = make_own()
    cache.set("key", 1)
    own_server.pause()
    big = {str(each): "x" * 500_000 for each in range(60)}

    def write(_: int) -> type:
        with pytest.raises(Unavailable) as raised:
            cache.set_many(big)
        return raised.type

    with within(A_VIEW + SLACK), ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(4))) <= {NotSent, OutcomeUnknown}
    assert cache.session.waiters == 0


def test_a_half_open_connection_is_noticed(own_server: NatsServer, make_own: MakeOwn) -> None:
    with Proxy(own_server.port) as proxy:
        cache = make_own(proxy.url)
        cache.set("key", "value")
        proxy.freeze()
        with within(5 + SLACK):
            assert soon(lambda: not cache.session.connected)
        with within(SLACK), pytest.raises(NotSent):
            cache.get("key")


# Coming back ---------------------------------------------------------------------------------


def test_back_soon_after_the_servers_return(make_own: MakeOwn, own_server: NatsServer) -> None:
    cache = make_own(STORAGE="file")
    cache.set("key", "value")
    for _ in range(3):
        own_server.kill()
        assert soon(lambda: not cache.session.connected)
        own_server.start()
        with within(BACK):
            assert soon(lambda: answers(cache))
        assert cache.get("key") == "value"


def test_outages_leave_no_tasks_behind(own_server: NatsServer, make_own: MakeOwn) -> None:
    with Proxy(own_server.port, delay=0) as proxy:
        cache = make_own(proxy.url)
        cache.set("key", "value")
        before = _tasks()
        for _ in range(5):
            proxy.freeze()
            with pytest.raises(OutcomeUnknown):
                cache.get("key")
            proxy.cut()
            proxy.thaw()
            assert soon(lambda: answers(cache))
        assert soon(lambda: _tasks() <= before)


def _tasks() -> int:
    counted: list[int] = []
    done = threading.Event()

    def count() -> None:
        counted.append(len(asyncio.all_tasks(asyncio.get_event_loop())))
        done.set()

    bridge._thread.call(count)
    done.wait()
    return counted[0]


@pytest.mark.parametrize("how", ["killed", "stopped", "stopped for long"])
def test_an_outage_is_logged_once_and_so_is_its_end(
    own_server: NatsServer, make_own: MakeOwn, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    cache = make_own(STORAGE="file")
    cache.set("key", "value")
    caplog.set_level(logging.DEBUG, "django_nats")
    if how == "killed":
        own_server.kill()
    else:
        own_server.pause()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: mixed_calls(cache), range(8)))
        in_a_loop(cache)
        if how == "stopped for long":
            assert soon(lambda: cache.session._connection is None)
        list(pool.map(lambda _: mixed_calls(cache), range(8)))
    away = [record for record in caplog.records if record.name == "django_nats"]
    assert [record.levelname for record in away] == ["WARNING"]
    assert own_server.url in away[0].getMessage()
    if how == "killed":
        own_server.start()
    else:
        own_server.resume()
    assert soon(lambda: answers(cache))
    mixed_calls(cache)
    records = [record for record in caplog.records if record.name == "django_nats"]
    assert len(records) == 2
    assert "again" in records[1].getMessage()


# What became of it ---------------------------------------------------------------------------


@pytest.mark.usefixtures("without_pings")
def test_under_load(own_server: NatsServer, make_own: MakeOwn) -> None:
    """Killed, restarted, stopped and resumed under threads and tasks that write."""
    cache = make_own(STORAGE="file")
    cache.set("key", "value")
    outcomes: dict[str, str] = {}
    slowest = [0.0]
    stop = threading.Event()

    def note(key: str, started: float, outcome: str) -> None:
        outcomes[key] = outcome
        slowest[0] = max(slowest[0], time.monotonic() - started)

    def work(number: int) -> None:
        turn = 0
        while not stop.wait(0.002):
            key, started = f"thread-{number}-{turn}", time.monotonic()
            turn += 1
            try:
                cache.set(key, turn)
                note(key, started, "Stored")
            except Unavailable as error:
                note(key, started, type(error).__name__)

    async def awork(number: int) -> None:
        turn = 0
        while not stop.is_set():
            await asyncio.sleep(0.002)
            key, started = f"task-{number}-{turn}", time.monotonic()
            turn += 1
            try:
                await cache.aset(key, turn)
                note(key, started, "Stored")
            except Unavailable as error:
                note(key, started, type(error).__name__)

    async def tasks() -> None:
        await asyncio.gather(*(awork(number) for number in range(8)))

    def more(outcome: str, kind: str) -> bool:
        before = sum(each == outcome for each in list(outcomes.values()))
        return soon(lambda: sum(each == outcome for each in list(outcomes.values())) > before + 20)

    with ThreadPoolExecutor(9) as pool:
        running = [pool.submit(work, number) for number in range(8)]
        running.append(pool.submit(asyncio.run, tasks()))
        try:
            for trouble, end in (
                (own_server.kill, own_server.start),
                (own_server.pause, own_server.resume),
                (own_server.kill, own_server.start),
            ):
                assert more("Stored", "before")
                trouble()
                assert more("NotSent", "during")
                end()
            assert more("Stored", "after")
        finally:
            stop.set()
        for each in running:
            each.result(5)

    assert slowest[0] < TIMEOUT + SLACK
    assert "OutcomeUnknown" in outcomes.values()
    found = cache.get_many(outcomes)
    assert [key for key in found if outcomes[key] == "NotSent"] == []
    assert {key for key, each in outcomes.items() if each == "Stored"} <= found.keys()


def test_what_a_stopped_server_was_sent_may_apply_later(
    own: NatsCache, own_server: NatsServer
) -> None:
    own_server.pause()
    with pytest.raises(OutcomeUnknown):
        own.set("sent", 1)
    with pytest.raises(NotSent):
        own.set("not-sent", 1)
    own_server.resume()
    assert soon(lambda: answers(own))
    assert own.get_many(["sent", "not-sent"]) == {"sent": 1}


def test_killed_with_a_pipeline_in_flight(own_server: NatsServer, make_own: MakeOwn) -> None:
    with Proxy(own_server.port, delay=0.05) as proxy:
        cache = make_own(proxy.url, STORAGE="file")
        cache.set("key", "value")
        data = {str(number): "x" * 1000 for number in range(3000)}
        with ThreadPoolExecutor(1) as pool:
            proxy.freeze()
            writing = pool.submit(cache.set_many, data)
            assert soon(lambda: cache.session.waiters > 1000)
            own_server.kill()
            proxy.thaw()
            with within(TIMEOUT + SLACK), pytest.raises(OutcomeUnknown) as raised:
                writing.result()
        assert raised.value.__cause__ is not None
        assert cache.session.waiters == 0


# A connection survives -----------------------------------------------------------------------


def test_a_message_over_the_servers_limit(make_own: MakeOwn) -> None:
    with ExitStack() as stack:
        small = stack.enter_context(NatsServer(config="max_payload: 4096"))
        cache = make_own(small.url, TOKEN=small.token)
        cache.set("key", "value")
        connection = cache.session._connection
        with pytest.raises(ValueError, match="max_payload"):
            cache.set("big", "x" * 5000)
        assert cache.get("key") == "value"
        assert cache.session._connection is connection
        stack.callback(bridge.close)
