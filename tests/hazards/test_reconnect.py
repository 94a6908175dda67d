"""The server dies, stops and returns: every call ends, and reports its outcome correctly.

A call that raises NotSent was refused at once; the tests use that to show that it did not wait.
"""

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
from django_nats.client import process
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import NotSent, OutcomeUnknown, Unavailable
from tests.hazards.conftest import TIMEOUT, MakeOwn
from tests.support.patience import hurried, hurry
from tests.support.ports import free_port
from tests.support.proxy import Proxy

BACK = 10.0
"""Seconds; the docs promise one, but a starting server may swallow a request."""


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    return eventually(condition, time.monotonic() + seconds)


def answers(cache: NatsCache) -> bool:
    try:
        cache.set("probe", 1)
        return bool(cache.get("probe") == 1)
    except Unavailable:
        return False


@contextmanager
def black_hole() -> Iterator[str]:
    """Listen on a port that accepts connections and never sends anything. Yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"


def mixed_calls(cache: NatsCache) -> list[type]:
    """Make 20 calls and return the type of each error, or NoneType."""
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


def test_a_session_is_not_connected_as_long_as_calls_are_refused(
    own_server: NatsServer, own: NatsCache
) -> None:
    states: list[tuple[bool, bool]] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Reconnected"):
                states.append((own.session.connected, own.session._fault is None))

    watching = Watching()
    logger = logging.getLogger("django_nats")
    logger.addHandler(watching)
    try:
        own_server.restart()
        assert soon(lambda: bool(states))
    finally:
        logger.removeHandler(watching)
    assert states == [(False, False)]
    assert soon(lambda: own.session.connected)


def test_calls_are_refused_if_no_server_ever_ran(make_own: MakeOwn) -> None:
    cache = make_own(f"nats://127.0.0.1:{free_port()}")
    with pytest.raises(NotSent) as raised:
        cache.get("key")
    assert isinstance(raised.value.__cause__, OSError)
    for _ in range(100):
        with pytest.raises(NotSent):
            cache.set("key", 1)


def test_calls_are_refused_after_one_timeout_if_the_address_never_answers(
    make_own: MakeOwn,
) -> None:
    with black_hole() as one, black_hole() as other:
        for location in (one, [one, other]):
            cache = make_own(location, CONNECT_TIMEOUT=0.5)
            for _ in range(1000):  # one timeout each would exceed the test's limit
                with pytest.raises(NotSent):
                    cache.get("key")


def test_a_silent_server_in_the_list_is_passed_over(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    with black_hole() as hole:
        for location in ([hole, own_server.url], [own_server.url, hole]):
            cache = make_own(location, CONNECT_TIMEOUT=8.0)
            cache.set("key", 1)
            assert cache.get("key") == 1


@pytest.mark.usefixtures("without_pings")
@VIEWS
def test_a_view_waits_for_one_timeout_while_the_server_is_stopped(
    own: NatsCache, own_server: NatsServer, view: View
) -> None:
    own_server.pause()
    with hurried(own, TIMEOUT):
        assert view(own) == [OutcomeUnknown] + [NotSent] * 19
    own_server.resume()
    assert soon(lambda: answers(own))
    assert set(view(own)) == {type(None)}


@VIEWS
def test_every_call_of_a_view_fails_while_the_server_is_dead(
    own: NatsCache, own_server: NatsServer, view: View
) -> None:
    own_server.kill()
    assert set(view(own)) <= {NotSent, OutcomeUnknown}


@pytest.mark.faults
@pytest.mark.usefixtures("without_pings")
def test_each_thread_waits_for_one_timeout_when_the_server_stops_under_load(
    own: NatsCache, own_server: NatsServer
) -> None:
    """Answers still arrive while the server stops; the stream must not count as silent."""
    stopped = threading.Event()

    def work(_: int) -> list[type]:
        with suppress(Unavailable):
            while not stopped.is_set():
                own.get("key")
        return mixed_calls(own)

    hurry(own, 6.0)  # longer than a running server takes to answer
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(work, number) for number in range(8)]
        own_server.pause()
        stopped.set()
        # Each thread waits for one timeout in all, not for one per call.
        assert all(each.result().count(OutcomeUnknown) <= 1 for each in done)
    assert not own.bucket.stream.lanes.reads.fault


def test_a_log_handler_may_use_the_cache_during_an_outage(
    own: NatsCache, own_server: NatsServer
) -> None:
    """Like a handler that throttles mails: it holds its lock while the outage is logged."""

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
                hurry(own, TIMEOUT)
                pool.submit(loggers[1].warning, "out of order").result(60)
            finally:
                own_server.resume()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@pytest.mark.usefixtures("without_pings")
def test_writes_beyond_a_stopped_servers_buffers_time_out(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    """Data that does not fit into the connection's buffer does not wait without a bound."""
    cache = make_own()
    cache.set("key", 1)
    own_server.pause()
    hurry(cache, TIMEOUT)
    big = {str(each): "x" * 500_000 for each in range(60)}

    def write(_: int) -> type:
        with pytest.raises(Unavailable) as raised:
            cache.set_many(big)
        return raised.type

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, range(4))) <= {NotSent, OutcomeUnknown}
    assert cache.session.waiters == 0


def test_a_half_open_connection_is_noticed(own_server: NatsServer, make_own: MakeOwn) -> None:
    with Proxy(own_server.port) as proxy:
        cache = make_own(proxy.url)
        cache.set("key", "value")
        proxy.freeze()
        assert soon(lambda: not cache.session.connected)
        with pytest.raises(NotSent):
            cache.get("key")


# Coming back ---------------------------------------------------------------------------------


@pytest.mark.faults
def test_calls_succeed_soon_after_the_server_returns(
    make_own: MakeOwn, own_server: NatsServer
) -> None:
    cache = make_own(STORAGE="file")
    cache.set("key", "value")
    for _ in range(3):
        own_server.kill()
        assert soon(lambda: not cache.session.connected)
        own_server.start()
        with hurried(cache, TIMEOUT):
            assert soon(lambda: answers(cache), BACK)
        assert cache.get("key") == "value"


@pytest.mark.usefixtures("without_pings")
def test_outages_leave_no_tasks_behind(own_server: NatsServer, make_own: MakeOwn) -> None:
    with Proxy(own_server.port, delay=0) as proxy:
        cache = make_own(proxy.url)
        cache.set("key", "value")
        before = _tasks()
        for _ in range(5):
            proxy.freeze()
            with hurried(cache, TIMEOUT), pytest.raises(OutcomeUnknown):
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

    loop_thread.call(count)
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
    with hurried(cache, TIMEOUT), ThreadPoolExecutor(4) as pool:
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
    # A slow machine may take so long that a server that was stopped shortly counts as lost, too.
    ends = ("Reconnected", "answers again") if how == "stopped" else ("Reconnected",)
    assert any(each in records[1].getMessage() for each in ends)


# What became of it ---------------------------------------------------------------------------


@pytest.mark.usefixtures("without_pings")
def test_reported_outcomes_are_true_through_outages_under_load(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
    """The server is killed, restarted, stopped and resumed while threads and tasks write."""
    cache = make_own(STORAGE="file")
    cache.set("key", "value")
    hurry(cache, TIMEOUT)
    outcomes: dict[str, str] = {}
    stop = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not stop.wait(0.002):
            key = f"thread-{number}-{turn}"
            turn += 1
            try:
                cache.set(key, turn)
                outcomes[key] = "Stored"
            except Unavailable as error:
                outcomes[key] = type(error).__name__

    async def awork(number: int) -> None:
        turn = 0
        while not stop.is_set():
            await asyncio.sleep(0.002)  # real time: gives the other tasks a turn
            key = f"task-{number}-{turn}"
            turn += 1
            try:
                await cache.aset(key, turn)
                outcomes[key] = "Stored"
            except Unavailable as error:
                outcomes[key] = type(error).__name__

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
            each.result(60)

    assert "OutcomeUnknown" in outcomes.values()
    hurry(cache, 60.0)
    assert soon(lambda: answers(cache))
    found = cache.get_many(outcomes)
    assert [key for key in found if outcomes[key] == "NotSent"] == []
    assert {key for key, each in outcomes.items() if each == "Stored"} <= found.keys()


@pytest.mark.usefixtures("without_pings")
def test_a_write_with_unknown_outcome_may_apply_after_the_server_resumes(
    own: NatsCache, own_server: NatsServer
) -> None:
    own_server.pause()
    with hurried(own, TIMEOUT), pytest.raises(OutcomeUnknown):
        own.set("sent", 1)
    with pytest.raises(NotSent):
        own.set("not-sent", 1)
    own_server.resume()
    assert soon(lambda: answers(own))
    assert own.get_many(["sent", "not-sent"]) == {"sent": 1}


@pytest.mark.usefixtures("without_pings")
def test_a_pipeline_in_flight_fails_when_the_server_is_killed(
    own_server: NatsServer, make_own: MakeOwn
) -> None:
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
            with pytest.raises(OutcomeUnknown) as raised:
                writing.result()
        assert raised.value.__cause__ is not None
        assert cache.session.waiters == 0


# A connection survives -----------------------------------------------------------------------


def test_a_value_over_max_payload_is_refused_and_the_connection_survives(make_own: MakeOwn) -> None:
    with ExitStack() as stack:
        small = stack.enter_context(NatsServer(config="max_payload: 4096"))
        cache = make_own(small.url, TOKEN=small.token)
        cache.set("key", "value")
        connection = cache.session._connection
        with pytest.raises(ValueError, match="max_payload"):
            cache.set("big", "x" * 5000)
        assert cache.get("key") == "value"
        assert cache.session._connection is connection
        stack.callback(process.close)
