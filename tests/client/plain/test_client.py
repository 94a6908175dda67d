"""A client of a block: what it can do, how it connects and reconnects, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError

from django_nats.client.plain import client as plain
from django_nats.client.plain.client import PlainClient, connect, connected
from django_nats.client.transport.asking import Asking
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.secrets import SecretFunction
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NotSent, OutcomeUnknown
from tests.client.plain.conftest import Lines, config_of, opened, soon
from tests.support.cluster import MONITORED, connections
from tests.support.logins import authorization
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.reloading import Reloading


async def failure(config: ConnectionConfig) -> Exception:
    with pytest.raises(NotSent) as raised:
        async with connected(config):
            pass
    return raised.value


# What it can do ------------------------------------------------------------------------------


async def test_the_client_of_a_block_is_an_ordinary_one(server: NatsServer) -> None:
    async with connected(config_of(server)) as nc:
        assert isinstance(nc, Client)

        async def double(msg: Msg) -> None:
            await msg.respond(msg.data * 2)

        await nc.subscribe("plain.double", cb=double)
        assert (await nc.request("plain.double", b"ab", timeout=60)).data == b"abab"

        js = nc.jetstream(timeout=60)
        await js.add_stream(name="plain", subjects=["plain.stored.>"])
        assert (await js.publish("plain.stored.a", b"x")).seq == 1
        await js.delete_stream("plain")

        store = await js.create_object_store("plain")
        await store.put("report", b"0" * 300_000)
        assert len((await store.get("report")).data or b"") == 300_000
        await js.delete_object_store("plain")
    assert nc.is_closed
    with pytest.raises(ConnectionClosedError):
        await nc.publish("plain.late")


async def test_each_block_has_a_connection_of_its_own() -> None:
    with NatsServer(config=MONITORED) as server:
        async with connected(config_of(server)) as one, connected(config_of(server)) as other:
            assert one is not other
            assert connections(server) == 2
        assert await soon(lambda: connections(server) == 0)


# Connecting ----------------------------------------------------------------------------------


async def test_a_refused_login_says_what_to_correct_and_holds_no_secret(
    server: NatsServer,
) -> None:
    error = await failure(config_of(server, token="s3cret"))
    assert type(error) is AuthenticationFailed
    assert str(error).endswith('Correct TOKEN of CACHES["default"].')
    shown = "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    )
    assert "s3cret" not in shown
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None


async def test_a_dead_server_is_not_sent_anything() -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"
    error = await failure(ConnectionConfig((nobody,), connect_timeout=60.0))
    assert type(error) is NotSent
    assert str(error).startswith(f"No connection to NATS at {nobody}: ")


async def test_a_server_that_says_nothing_fails_after_connect_timeout() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        url = f"nats://127.0.0.1:{mute.getsockname()[1]}"
        error = await failure(ConnectionConfig((url,), connect_timeout=0.2))
    assert type(error) is NotSent


async def test_no_credentials_are_sent_without_tls_if_settings_require_it() -> None:
    greeting = {"server_id": "x", "version": "2.15.1", "max_payload": 1024, "auth_required": True}
    received: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % json.dumps(greeting).encode())
        received.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        url = f"tls://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        error = await failure(ConnectionConfig((url,), token="s3cret", connect_timeout=60.0))
        assert await soon(lambda: received)
    assert "offers no TLS" in str(error)
    assert received == [b""]


async def test_a_cancelled_attempt_leaves_no_connection() -> None:
    with NatsServer(config=MONITORED) as server, Proxy(server.port) as proxy:
        proxy.freeze()
        config = replace(config_of(server), servers=(proxy.url,))
        attempt = asyncio.ensure_future(connect(config, Asking(config)))
        assert await soon(lambda: proxy.connections)
        attempt.cancel()
        await asyncio.wait([attempt])
        assert attempt.cancelled()
        proxy.thaw()
        assert await soon(lambda: connections(server) == 0)


# Reconnecting --------------------------------------------------------------------------------


async def test_a_subscription_survives_a_restart_of_the_server(
    own_server: NatsServer, lines: Lines
) -> None:
    client = await opened(config_of(own_server))
    try:
        sub = await client.subscribe("plain.news")
        own_server.restart()
        assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
        await client.publish("plain.news", b"again")
        assert (await sub.next_msg(60)).data == b"again"
        where = f'A connection of CACHES["default"] to NATS at {own_server.url}'
        assert [each for each in lines() if "EOF" not in each] == [
            f"{where} was lost",
            f"{where} is back",
        ]
    finally:
        await client.finish()


async def test_a_forked_child_would_close_the_socket_of_a_client_that_has_reconnected(
    own_server: NatsServer,
) -> None:
    client = await opened(config_of(own_server))
    try:
        own_server.restart()
        assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
        sock = client._transport._io_writer.get_extra_info("socket")
        assert client.descriptors() == [sock.fileno()]
    finally:
        await client.finish()


async def test_another_server_of_the_list_takes_over(own_server: NatsServer) -> None:
    with NatsServer(token=own_server.token) as other:
        client = await opened(config_of(own_server, other.url))
        try:
            first = client.connected_url
            assert first is not None
            (own_server if first.port == own_server.port else other).kill()
            assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
            second = client.connected_url
            assert second is not None
            assert {first.port, second.port} == {own_server.port, other.port}
        finally:
            await client.finish()


async def test_a_reconnect_logs_in_with_the_secret_that_is_valid_by_then(
    own_server: NatsServer,
) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(threading.current_thread().name)
        return own_server.token

    client = await opened(config_of(own_server, token=SecretFunction(token)))
    try:
        own_server.token = "rotated"
        own_server.restart()
        assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
        assert set(asked) == {"django-nats-secrets"}
        assert len(asked) > 1
    finally:
        await client.finish()


async def test_a_client_comes_back_after_the_server_has_ended_its_login(lines: Lines) -> None:
    """nats-py would close it for good, and a service would not notice."""
    with Reloading(token="", config=authorization("token: old")) as server:
        current = ["old"]
        config = config_of(server, token=SecretFunction(lambda: current[0]))
        client = await opened(config)
        try:
            current[0] = "new"
            server.reload(authorization("token: new"))
            assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
            await client.flush()
            assert any("authorization violation" in each for each in lines())
        finally:
            await client.finish()


async def test_a_reconnect_is_tried_again_after_a_function_has_failed_or_hung(
    own_server: NatsServer,
) -> None:
    """nats-py itself gives up after an error that it does not know."""
    released = threading.Event()
    answers: list[Callable[[], object]] = [lambda: own_server.token, released.wait, lambda: 1 / 0]

    def token() -> object:
        return answers.pop(0)() if answers else own_server.token

    config = config_of(own_server, token=SecretFunction(token))
    client = await opened(config)
    client._asking = Asking(replace(config, connect_timeout=0.05))
    try:
        own_server.restart()
        assert await soon(lambda: len(answers) == 1)  # the second function hangs
        released.set()
        assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
        assert not answers
    finally:
        released.set()
        await client.finish()


async def test_a_reconnect_sends_no_credentials_without_tls_if_settings_require_it(
    own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "django_nats")
    with NatsServer(token=own_server.token) as plain_server:
        safe = plain_server.url.replace("nats:", "tls:")
        client = await opened(config_of(own_server, safe, randomize=False))
        try:
            own_server.kill()
            assert await soon(lambda: "offers no TLS" in caplog.text)
            own_server.start()
            assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
            assert client.connected_url is not None
            assert client.connected_url.port == own_server.port
        finally:
            await client.finish()


# What it reports -----------------------------------------------------------------------------


async def test_a_missing_permission_is_one_line_in_the_log(lines: Lines) -> None:
    config = authorization(
        'users: [{ user: u, password: p, permissions: { publish: { deny: ["denied"] } } }]'
    )
    with NatsServer(config=config, token="") as server:
        login = {"token": None, "user": "u", "password": "p"}
        async with connected(config_of(server, **login)) as nc:
            await nc.publish("denied", b"x")
    (line,) = lines()
    assert 'permissions violation for publish to "denied"' in line


async def test_an_error_in_a_callback_is_logged_with_its_traceback(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(msg: Msg) -> None:
        raise OSError("a mistake")

    async with connected(config_of(server)) as nc:
        await nc.subscribe("plain.callback", cb=fail)
        await nc.publish("plain.callback")
        assert await soon(lambda: caplog.records)
    (record,) = caplog.records
    assert record.name == "django_nats"
    assert "a callback has failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


# How it ends ---------------------------------------------------------------------------------


async def test_a_block_ends_when_the_server_has_received_what_was_published(
    server: NatsServer,
) -> None:
    with Proxy(server.port) as proxy:
        config = replace(config_of(server), servers=(proxy.url,))
        async with connected(config_of(server)) as other:
            sub = await other.subscribe("plain.ends")
            await other.flush()
            async with connected(config) as nc:
                await nc.publish("plain.ends", b"last")
            await other.flush()
            assert sub.pending_msgs == 1


async def test_a_ping_follows_what_was_published_before(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py itself sends the ping first, so that its answer says nothing of the rest."""
    sent = b""

    def note(data: bytes) -> None:
        nonlocal sent
        sent += data

    async with connected(config_of(server)) as nc:
        transport = nc._transport
        with monkeypatch.context() as patch:
            patch.setattr(transport, "write", note)
            patch.setattr(transport, "writelines", lambda lines: note(b"".join(lines)))
            await nc.publish("plain.pinged", b"x")
            pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            await nc._send_ping(pong)
        transport.write(sent)
        await asyncio.wait_for(pong, 60)
    assert sent.startswith(b"PUB plain.pinged ")
    assert sent.endswith(b"\r\nPING\r\n")


async def test_a_block_that_the_server_does_not_confirm_raises(server: NatsServer) -> None:
    with Proxy(server.port) as proxy:
        config = replace(config_of(server), servers=(proxy.url,))
        with pytest.raises(OutcomeUnknown, match="may not have received"):  # noqa: PT012
            async with connected(config) as nc:
                proxy.freeze()
                await nc.publish("plain.lost", b"x")
                assert isinstance(nc, PlainClient)
                nc._config = replace(config, connect_timeout=0.2)
        assert nc.is_closed


async def test_an_error_in_a_block_is_raised_though_the_server_does_not_answer(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_CLOSE_S", 0.2)
    with Proxy(server.port) as proxy:
        config = replace(config_of(server), servers=(proxy.url,))
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012
            async with connected(config) as nc:
                proxy.freeze()
                await nc.publish("plain.stuck", b"0" * 1_000_000)
                raise KeyError("mine")
        assert nc.is_closed
        assert isinstance(nc, PlainClient)
        await asyncio.sleep(0)  # the socket is closed in the next turn of the loop
        assert nc.descriptors() == [-1]


async def test_a_block_may_close_its_client_itself(server: NatsServer) -> None:
    handled = []

    async def handle(msg: Msg) -> None:
        await asyncio.sleep(0)
        handled.append(msg.data)

    async with connected(config_of(server)) as nc:
        await nc.subscribe("plain.drained", cb=handle)
        for _ in range(10):
            await nc.publish("plain.drained", b"x")
        await nc.drain()
    assert len(handled) == 10


async def test_a_block_may_close_its_client_after_an_error_that_was_reported(lines: Lines) -> None:
    config = authorization(
        'users: [{ user: u, password: p, permissions: { publish: { deny: ["denied"] } } }]'
    )
    with NatsServer(config=config, token="") as server:
        login = {"token": None, "user": "u", "password": "p"}
        async with connected(config_of(server, **login)) as nc:
            await nc.publish("denied", b"x")
            assert await soon(lines)
            await nc.drain()
