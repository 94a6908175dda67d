"""The private parts of nats-py that client/connection.py stands on.

When an upgrade of nats-py breaks one, the name of the test that fails says which.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from django_nats.client.connection import Connection
from django_nats.devserver import NatsServer

pytestmark = pytest.mark.smoke


class Recording(Client):  # type: ignore[misc]
    """What the parser hands on, and to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    async def _process_msg(self, *args: Any) -> None:
        self.calls.append(("msg", *args))

    async def _process_pong(self) -> None:
        self.calls.append(("pong",))

    async def _error(self, error: Exception) -> None:
        self.calls.append(("error", str(error)))


@pytest.mark.parametrize("name", ["_process_msg", "_process_pong", "_process_op_err"])
def test_a_method_that_is_overridden_exists_and_is_a_coroutine_function(name: str) -> None:
    theirs = getattr(Client, name)
    assert inspect.iscoroutinefunction(theirs)
    ours = inspect.signature(getattr(Connection, name))
    assert list(ours.parameters)[1:] == list(inspect.signature(theirs).parameters)[1:]


async def _parsed(data: bytes) -> list[tuple[Any, ...]]:
    client = Recording()
    client._error_cb = client._error
    await Parser(client).parse(data)
    return client.calls


async def test_the_parser_hands_messages_to_process_msg() -> None:
    assert await _parsed(b"MSG a.b 7 reply.to 2\r\nhi\r\n") == [
        ("msg", 7, b"a.b", b"reply.to", b"hi", None)
    ]
    header = b"NATS/1.0\r\nA: b\r\n\r\n"
    assert await _parsed(
        b"HMSG a 1 %d %d\r\n%bhi\r\n" % (len(header), len(header) + 2, header)
    ) == [("msg", 1, b"a", b"", b"hi", header)]
    assert await _parsed(b"HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n") == [
        ("msg", 1, b"a", b"", b"", b"NATS/1.0 503\r\n\r\n")
    ]


async def test_the_parser_hands_pongs_to_process_pong() -> None:
    assert await _parsed(b"PONG\r\n") == [("pong",)]


async def test_a_permissions_violation_goes_to_the_error_callback_in_lower_case() -> None:
    assert await _parsed(b"-ERR 'Permissions Violation for Publish to \"A.b\"'\r\n") == [
        ("error", 'nats: permissions violation for publish to "a.b"')
    ]


async def test_a_connected_client_has_a_transport_and_a_reading_task(server: NatsServer) -> None:
    client = Client()
    await client.connect(server.url, token=server.token, allow_reconnect=False)
    try:
        assert isinstance(client._transport, TcpTransport)
        assert isinstance(client._reading_task, asyncio.Task)
        assert client._pings_outstanding == 0
        writer = client._transport._io_writer
        assert writer.get_extra_info("socket").fileno() > 0
        assert writer.transport.get_write_buffer_size() == 0
        assert callable(writer.transport.abort)
    finally:
        await client.close()


async def test_a_lost_peer_ends_in_process_op_err(server: NatsServer) -> None:
    lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    class Losing(Client):  # type: ignore[misc]
        async def _process_op_err(self, e: Exception) -> None:
            lost.set_result(e)

    async def quiet(_: Exception) -> None:
        return

    client = Losing()
    await client.connect(server.url, token=server.token, allow_reconnect=False, error_cb=quiet)
    client._transport._io_writer.transport.pause_reading()
    client._transport._io_reader.feed_eof()
    assert isinstance(await asyncio.wait_for(lost, 5), Exception)
    await client.close()
