"""The private parts of nats-py on which the subclasses of its client depend, as listed.

When an upgrade of nats-py breaks one, the name of the test that fails says which.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from django_nats.client.plain.client import PlainClient
from django_nats.client.transport.connection import Connection
from django_nats.client.transport.greeting import OpenTransport
from django_nats.client.transport.nats_client import NatsClient
from django_nats.client.transport.nats_py import PRIVATE_NAMES
from django_nats.devserver import NatsServer

pytestmark = pytest.mark.smoke

_OVERRIDDEN = [
    *[(Connection, name) for name in ("_read_loop", "_send_ping", "_process_op_err")],
    *[(NatsClient, name) for name in ("_connect_to_server", "_process_info")],
    *[(PlainClient, name) for name in ("_process_connect_init", "_send_ping")],
]
_CALLED = {"_process_pong": [], "_process_err": ["err_msg"]}


async def quiet(_: Exception) -> None:
    return


async def connected(client: Client, server: NatsServer, **options: Any) -> Client:
    common = {
        "token": server.token,
        "allow_reconnect": False,
        "error_cb": quiet,
        "connect_timeout": 60,
    }
    await client.connect(server.url, **{**common, **options})
    return client


@pytest.mark.parametrize(("kind", "name"), _OVERRIDDEN)
def test_a_method_that_is_overridden_exists_and_is_a_coroutine_function(
    kind: type[Client], name: str
) -> None:
    theirs = getattr(Client, name)
    assert inspect.iscoroutinefunction(theirs)
    ours = inspect.signature(getattr(kind, name))
    assert list(ours.parameters) == list(inspect.signature(theirs).parameters)


@pytest.mark.parametrize("name", _CALLED)
def test_a_method_that_is_called_exists_and_is_a_coroutine_function(name: str) -> None:
    theirs = getattr(Client, name)
    assert inspect.iscoroutinefunction(theirs)
    assert list(inspect.signature(theirs).parameters)[1:] == _CALLED[name]


def test_the_private_names_in_use_are_those_that_are_listed() -> None:
    """The connection's own names also do not clash with those of nats-py."""
    listed = {name for names in PRIVATE_NAMES.values() for name in names}
    ours = (Connection, NatsClient, PlainClient, OpenTransport)
    used = {name for each in ours for name in re.findall(r"\.(_[a-z_]+)", inspect.getsource(each))}
    own = {name for each in ours for name in vars(each) if name[:2] != "__"}
    theirs = {name for name in [*dir(Client()), *vars(TcpTransport())] if name[:2] != "__"}
    assert (used | own) & theirs - {"close", "connect", "drain"} == listed


async def test_the_reader_is_run_once_connected(server: NatsServer) -> None:
    """No bytes that the server sends after that have been read."""
    read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Reading(Client):  # type: ignore[misc]
        async def _read_loop(self) -> None:
            await self._send_ping()
            data = b""
            while b"PONG\r\n" not in data:
                data += await self._transport.read(1000)
            read.set_result(data)

    client = await connected(Reading(), server)
    try:
        assert isinstance(client._reading_task, asyncio.Task)
        assert (await asyncio.wait_for(read, 60)).endswith(b"PONG\r\n")
    finally:
        await client.close()


async def test_pings_are_sent_by_one_method_and_answered_in_order(server: NatsServer) -> None:
    of_its_own, asked_for = asyncio.Event(), asyncio.Event()

    class Pinging(Client):  # type: ignore[misc]
        async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
            (of_its_own if future is None else asked_for).set()
            self._pongs.append(future or asyncio.get_running_loop().create_future())

    client = await connected(Pinging(), server, ping_interval=0.01, max_outstanding_pings=1000)
    try:
        await asyncio.wait_for(of_its_own.wait(), 60)
        flushing = asyncio.ensure_future(client.flush())
        await asyncio.wait_for(asked_for.wait(), 60)
        assert client._pings_outstanding > 0
        while client._pongs:
            assert not flushing.done()
            await client._process_pong()
        await asyncio.wait_for(flushing, 60)
        # Pings that nats-py has sent since.
        assert client._pings_outstanding <= len(client._pongs)
    finally:
        await client.close()


async def test_what_is_published_is_kept_until_the_next_turn_of_the_loop(
    server: NatsServer,
) -> None:
    client = await connected(Client(), server)
    await client.publish("a.b", b"x")
    assert b"".join(client._pending).startswith(b"PUB a.b")
    assert client._pending_data_size == len(b"".join(client._pending))
    await client.close()


async def test_too_many_pings_without_an_answer_end_in_process_op_err(server: NatsServer) -> None:
    lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    class Losing(Client):  # type: ignore[misc]
        async def _read_loop(self) -> None:
            await asyncio.shield(lost)

        async def _process_op_err(self, e: Exception) -> None:
            lost.set_result(e)

    client = await connected(Losing(), server, ping_interval=0.01, max_outstanding_pings=2)
    assert "stale" in str(await asyncio.wait_for(lost, 60))
    await client.close()


async def test_a_permissions_violation_goes_to_the_error_callback(server: NatsServer) -> None:
    messages: list[str] = []

    async def error(error: Exception) -> None:
        messages.append(str(error))

    client = await connected(Client(), server, error_cb=error)
    await client._process_err("'permissions violation for publish to \"a.b\"'")
    assert messages == ['nats: permissions violation for publish to "a.b"']
    assert str(client.last_error) == messages[0]
    assert client.is_connected
    await client.close()


async def test_any_other_error_closes(server: NatsServer) -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    client = await connected(Client(), server, closed_cb=close)
    await client._process_err("'authorization violation'")
    await asyncio.wait_for(closed.wait(), 60)
    assert "authorization" in str(client.last_error).lower()


async def test_info_is_processed_while_connecting_and_later(server: NatsServer) -> None:
    """While connecting, the INFO can still be changed before it is used."""
    seen: list[tuple[dict[str, Any], bool]] = []

    class Told(Client):  # type: ignore[misc]
        async def _process_info(
            self, info: dict[str, Any], initial_connection: bool = False
        ) -> None:
            seen.append((info, initial_connection))
            await super()._process_info(info, initial_connection)

    client = await connected(Told(), server)
    ((info, initial),) = seen
    assert initial
    assert info["max_payload"] == client.max_payload
    await client._process_info({"connect_urls": ["127.0.0.1:1"]})
    assert [each.geturl() for each in client.discovered_servers] == ["nats://127.0.0.1:1"]
    await client.close()


async def test_a_transport_that_is_connected_already_is_used(server: NatsServer) -> None:
    class Given(Client):  # type: ignore[misc]
        async def _connect_to_server(self, s: object) -> None:
            return

    client, streams = Given(), await asyncio.open_connection("127.0.0.1", server.port)
    given = client._transport = OpenTransport(*streams, "here")
    await connected(client, server)
    try:
        assert client._transport is given
        assert given.greeted
        await client.flush()
    finally:
        given.end_login()
        await client.close()


async def test_a_connected_client_has_a_transport(server: NatsServer) -> None:
    client = await connected(Client(), server)
    try:
        assert isinstance(client._transport, TcpTransport)
        writer = client._transport._io_writer
        assert writer.get_extra_info("socket").fileno() > 0
        assert writer.transport.get_extra_info("ssl_object") is None
        assert writer.transport.get_write_buffer_size() == 0
        assert callable(writer.transport.abort)
        assert callable(writer.transport.pause_reading)
    finally:
        await client.close()
