"""The client that a process shares, and the functions that run with it."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError

from django_nats.client import process
from django_nats.client.plain import client as plain_client
from django_nats.client.plain import shared as plain_shared
from django_nats.client.plain.client import PlainClient
from django_nats.client.plain.shared import SharedClient
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.loop import LOOP_VARIABLE, runner, thread
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, BridgeMisuse, NotSent, OutcomeUnknown
from tests.client.plain.conftest import config_of
from tests.conftest import MakeCache
from tests.servers import eventually
from tests.support.cluster import MONITORED, connections
from tests.support.proxy import Proxy


@pytest.fixture
def shared(server: NatsServer) -> Iterator[SharedClient]:
    yield process.shared_client(config_of(server))
    process.close()


async def echo(nc: Client, *arguments: object) -> tuple[object, ...]:
    assert nc.is_connected
    return arguments


def run(shared: SharedClient, function: Callable[..., Any], *arguments: object) -> Any:
    return shared.run(function, arguments, 60.0)


# What it returns and raises ------------------------------------------------------------------


def test_a_function_gets_its_arguments_and_its_result_is_returned(shared: SharedClient) -> None:
    assert run(shared, echo) == ()
    assert shared.run(echo, ("a", 2), None) == ("a", 2)


def test_the_error_of_a_function_is_raised(shared: SharedClient) -> None:
    async def ask(nc: Client) -> None:
        await nc.request("nobody.listens", timeout=60)

    with pytest.raises(NoRespondersError):
        run(shared, ask)


def test_a_function_that_takes_too_long_is_cancelled(shared: SharedClient) -> None:
    cancelled = threading.Event()

    async def never(nc: Client) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    run(shared, echo)
    with pytest.raises(TimeoutError, match=r"never has not ended within 0\.05 seconds"):
        shared.run(never, (), 0.05)
    assert cancelled.wait(60)


def test_a_function_that_blocks_its_loop_is_not_waited_for(shared: SharedClient) -> None:
    released = threading.Event()

    async def block(nc: Client) -> None:
        released.wait()

    try:
        with pytest.raises(TimeoutError):
            shared.run(block, (), 0.05)
    finally:
        released.set()


@pytest.mark.parametrize("wrong", [lambda nc: None, 5])
def test_what_is_no_coroutine_function_is_refused(shared: SharedClient, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"run\(\) needs a coroutine function"):
        run(shared, wrong)


def test_each_caller_of_a_failed_attempt_gets_an_error_of_its_own(server: NatsServer) -> None:
    with Proxy(server.port) as proxy, ThreadPoolExecutor(4) as pool:
        proxy.freeze()
        config = replace(config_of(server, token="wrong"), servers=(proxy.url,))
        shared = process.shared_client(config)
        together = threading.Barrier(4)

        def fail() -> Exception:
            together.wait()
            with pytest.raises(AuthenticationFailed, match="Correct TOKEN") as raised:
                run(shared, echo)
            assert raised.value.__cause__ is not None
            return raised.value

        failing = [pool.submit(fail) for _ in range(4)]
        assert eventually(lambda: proxy.connections == 1)
        proxy.thaw()
        assert len({id(each.result()) for each in failing}) == 4
        process.close()


def test_an_attempt_that_fails_when_nobody_waits_any_more_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        url = f"nats://127.0.0.1:{mute.getsockname()[1]}"
        shared = process.shared_client(ConnectionConfig((url,), connect_timeout=0.4))
        with pytest.raises(TimeoutError):
            shared.run(echo, (), 0.05)
        assert eventually(lambda: shared._opening is None)
        process.close()
        gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio"] == []


def test_an_error_names_a_partial_function_without_its_arguments(shared: SharedClient) -> None:
    async def never(nc: Client, token: str) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"<locals>\.never has not ended") as raised:
        shared.run(partial(never, token="s3cret"), (), 0.05)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_function_that_exits_harms_no_later_call(
    shared: SharedClient, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio ends a loop in which a task exits."""
    monkeypatch.setenv(LOOP_VARIABLE, loop)

    async def leave(nc: Client) -> None:
        sys.exit(3)

    for _ in range(2):
        with pytest.raises(SystemExit):
            run(shared, leave)
        assert run(shared, echo, 1) == (1,)
    process.close()
    assert run(shared, echo, 2) == (2,)


def test_a_function_that_cancels_itself_is_an_error(shared: SharedClient) -> None:
    async def cancel(nc: Client) -> None:
        raise asyncio.CancelledError

    with pytest.raises(OutcomeUnknown, match="was cancelled, by itself or"):
        run(shared, cancel)
    assert run(shared, echo, 1) == (1,)


def test_a_call_that_times_out_while_it_waits_for_the_server_harms_no_later_call(
    server: NatsServer,
) -> None:
    """nats-py reads no more after the answer to a ping whose caller has given up."""
    with Proxy(server.port) as proxy:
        shared = process.shared_client(replace(config_of(server), servers=(proxy.url,)))
        clients, published = [], threading.Event()

        async def publish(nc: Client) -> None:
            clients.append(nc)
            proxy.freeze()
            published.set()

        async def answered(nc: Client) -> bool:
            clients.append(nc)
            sub = await nc.subscribe("shared.news")
            await nc.publish("shared.news", b"x")
            return (await sub.next_msg(60)).data == b"x"

        run(shared, echo)
        with pytest.raises(TimeoutError):
            shared.run(publish, (), 0.2)
        assert published.wait(60)
        proxy.thaw()
        assert run(shared, answered)
        assert run(shared, answered)
        process.close()
        assert len(set(clients)) == 1


def test_what_a_function_published_has_arrived_when_run_returns(server: NatsServer) -> None:
    with Proxy(server.port) as proxy:
        config = replace(config_of(server), servers=(proxy.url,))
        shared = process.shared_client(config)

        async def publish(nc: Client) -> None:
            proxy.freeze()
            await nc.publish("shared.lost", b"x")
            assert isinstance(nc, PlainClient)
            nc._config = replace(config, connect_timeout=0.2)

        with pytest.raises(OutcomeUnknown, match="may not have received"):
            run(shared, publish)
        process.close()


# Where it runs -------------------------------------------------------------------------------


def test_all_threads_share_one_connection() -> None:
    with NatsServer(config=MONITORED) as server:
        shared = process.shared_client(config_of(server))
        together = threading.Barrier(8)

        def work(number: int) -> object:
            together.wait()
            return run(shared, echo, number)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [(number,) for number in range(8)]
        assert connections(server) == 1
        assert process.shared_client(config_of(server)) is shared
        process.close()


def test_a_function_that_blocks_does_not_hold_up_the_cache(
    shared: SharedClient, make_cache: MakeCache
) -> None:
    cache = make_cache()
    blocked, released = threading.Event(), threading.Event()

    async def block(nc: Client) -> None:
        blocked.set()
        released.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, shared, block)
        try:
            assert blocked.wait(60)
            cache.set("key", 1)
            assert cache.get_many(["key", "other"]) == {"key": 1}
            assert asyncio.run(cache.aget("key")) == 1
        finally:
            released.set()
        running.result()


def test_a_function_can_use_the_cache(shared: SharedClient, make_cache: MakeCache) -> None:
    cache = make_cache()

    async def use(nc: Client) -> object:
        cache.set("key", 1)
        return await cache.aget("key")

    assert run(shared, use) == 1


@pytest.mark.parametrize("loop", [thread, runner])
def test_a_call_on_a_background_loops_thread_is_refused(shared: SharedClient, loop: Any) -> None:
    async def nested() -> None:
        run(shared, echo)

    run(shared, echo)
    future, _ = loop.submit(nested)
    with pytest.raises(BridgeMisuse, match="wait for itself"):
        future.result(60)


async def test_a_call_on_another_loops_thread_blocks_that_loop_only(shared: SharedClient) -> None:
    assert run(shared, echo, 1) == (1,)


# How it connects and ends --------------------------------------------------------------------


def test_a_call_after_a_lost_connection_connects_again(own_server: NatsServer) -> None:
    shared = process.shared_client(config_of(own_server))

    async def client_of(nc: Client) -> Client:
        return nc

    first = run(shared, client_of)
    own_server.restart()
    assert eventually(lambda: first.is_closed)
    assert run(shared, client_of) is not first
    own_server.kill()
    assert eventually(lambda: not shared._client or not shared._client.usable)
    with pytest.raises(NotSent, match="No connection to NATS"):
        run(shared, echo)


@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_function_that_closes_the_client_harms_no_later_call(
    shared: SharedClient, end: str
) -> None:
    async def close(nc: Client) -> str:
        await getattr(nc, end)()
        return "closed"

    assert run(shared, close) == "closed"
    assert run(shared, echo, 1) == (1,)


def test_a_caller_that_gives_up_does_not_end_the_attempt_of_another(server: NatsServer) -> None:
    with Proxy(server.port) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.freeze()
        shared = process.shared_client(replace(config_of(server), servers=(proxy.url,)))
        with pytest.raises(TimeoutError):
            shared.run(echo, (), 0.05)
        assert eventually(lambda: proxy.connections == 1)
        patient = pool.submit(run, shared, echo, 1)
        proxy.thaw()
        assert patient.result() == (1,)
        assert proxy.connections == 1
        process.close()


def test_closing_ends_a_running_function_and_later_calls_connect_again(
    shared: SharedClient,
) -> None:
    running = threading.Event()

    async def never(nc: Client) -> None:
        running.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run, shared, never)
        assert running.wait(60)
        process.close()
        with pytest.raises(OutcomeUnknown, match="never was cancelled"):
            ended.result()
    assert run(shared, echo, 1) == (1,)


def test_closing_ends_a_call_whose_function_ignores_that(
    shared: SharedClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plain_shared, "_ALIVE_CHECK_S", 0.05)
    running = threading.Event()

    async def stubborn(nc: Client) -> None:
        running.set()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run, shared, stubborn)
        assert running.wait(60)
        process.close()
        assert run(shared, echo, 1) == (1,)  # on the next loop
        with pytest.raises(OutcomeUnknown, match="stubborn was cancelled"):
            ended.result()


def test_a_call_that_its_loops_end_has_overtaken_is_not_taken_for_one_of_the_next_loop(
    shared: SharedClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plain_shared, "_ALIVE_CHECK_S", 0.05)
    running, submit = threading.Event(), runner.submit

    async def stubborn(nc: Client) -> None:
        running.set()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    def overtaken(function: Callable[[], Any]) -> Any:
        monkeypatch.setattr(runner, "submit", submit)
        submitted = submit(function)
        assert running.wait(60)
        process.close()
        assert run(shared, echo, 1) == (1,)
        return submitted

    monkeypatch.setattr(runner, "submit", overtaken)
    with pytest.raises(OutcomeUnknown, match="stubborn was cancelled"):
        run(shared, stubborn)
    assert [each for each in caplog.records if each.name == "concurrent.futures"] == []


async def test_a_connection_that_opens_too_late_is_closed(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that is about to end would leave its socket open."""
    connect, made = plain_client.connect, list[PlainClient]()

    async def note(*arguments: Any) -> PlainClient:
        made.append(await connect(*arguments))
        return made[0]

    monkeypatch.setattr(plain_client, "connect", note)
    late = SharedClient(config_of(server))
    opening = asyncio.ensure_future(late._connected())
    await asyncio.sleep(0)
    await late.close()
    with pytest.raises(NotSent, match="just been closed"):
        await opening
    assert made[0]._transport._io_writer.transport.is_closing()


def test_the_error_of_a_function_that_was_given_up_is_not_logged(
    shared: SharedClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, submit = threading.Event(), runner.submit

    async def fail(nc: Client) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    def in_time(function: Callable[[], Any]) -> Any:
        submitted = submit(function)
        assert begun.wait(60)
        return submitted

    monkeypatch.setattr(runner, "submit", in_time)
    with pytest.raises(TimeoutError):
        shared.run(fail, (), 0)
    process.close()  # the function has ended
    gc.collect()
    assert "never retrieved" not in caplog.text
