"""Which servers a client of a block reconnects to, and whose certificates it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from django_nats.client.plain.client import PlainClient
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.devserver import NatsServer
from tests.client.plain.conftest import config_of, opened, soon
from tests.support.announced import address, pair
from tests.support.black_hole import Names
from tests.support.certificates import Authority
from tests.support.ports import free_port

NAME, OTHER = "nats.example", "other.example"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def reconnected(client: PlainClient) -> int | None:
    """Wait until a client has reconnected, and return the port of its server."""
    assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
    assert client.connected_url is not None
    return client.connected_url.port


async def test_an_announced_server_takes_over(stack: ExitStack) -> None:
    first, second = pair(stack)
    client = await opened(ConnectionConfig((first.url,), connect_timeout=60.0))
    try:
        assert await soon(lambda: address(second) in client.announced)
        first.kill()
        assert await reconnected(client) == second.port
    finally:
        await client.finish()


async def test_an_announced_server_is_not_used_if_settings_say_so(stack: ExitStack) -> None:
    first, second = pair(stack)
    known = await opened(ConnectionConfig((first.url,), connect_timeout=60.0))
    client = await opened(ConnectionConfig((first.url,), connect_timeout=60.0, discover=False))
    try:
        assert await soon(lambda: address(second) in known.announced)
        second.kill()  # of this, too, the server informs its clients, one after another
        assert await soon(lambda: address(second) not in known.announced)
        await client.flush()
        assert [each.uri.port for each in client.server_pool] == [first.port]
    finally:
        await known.finish()
        await client.finish()


async def test_each_server_is_to_have_a_certificate_of_its_own_name(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    Names(monkeypatch).addresses.update({NAME: ["127.0.0.1"], OTHER: ["127.0.0.1"]})
    first, second = pair(stack, authority.block(NAME), authority.block(OTHER))
    urls = f"tls://{NAME}:{first.port}", f"tls://{OTHER}:{second.port}"
    client = await opened(
        ConnectionConfig(
            urls,
            tls=TLSConfig(ca=authority.ca),
            connect_timeout=60.0,
            randomize=False,
            discover=False,
        )
    )
    try:
        first.kill()
        assert await reconnected(client) == second.port
    finally:
        await client.finish()


async def test_the_end_of_a_client_with_tls_logs_no_warning(
    stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    block = authority.block("localhost", "127.0.0.1")
    server = stack.enter_context(NatsServer(config=block, token="", jetstream=False))
    tls = TLSConfig(ca=authority.ca)
    client = await opened(ConnectionConfig((server.url,), tls=tls, connect_timeout=60.0))
    sock = client._transport._io_writer.transport
    await client.close()
    assert await soon(sock.is_closing)
    assert [each for each in caplog.records if each.name == "asyncio"] == []


async def test_the_configured_hostname_is_that_of_every_server(
    stack: ExitStack, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    first, second = pair(stack, authority.block(NAME), authority.block(NAME))
    tls = TLSConfig(ca=authority.ca, hostname=NAME)
    urls = first.url, second.url
    client = await opened(ConnectionConfig(urls, tls=tls, connect_timeout=60.0, randomize=False))
    try:
        first.kill()
        assert await reconnected(client) == second.port
    finally:
        await client.finish()


async def test_the_order_of_servers_is_kept_if_settings_say_so(own_server: NatsServer) -> None:
    dead = [f"nats://127.0.0.1:{free_port()}" for _ in range(8)]
    client = await opened(config_of(own_server, *dead, randomize=False))
    try:
        await client.force_reconnect()
        await reconnected(client)
        assert [each.uri.geturl() for each in client.server_pool] == [*dead, own_server.url]
    finally:
        await client.finish()
