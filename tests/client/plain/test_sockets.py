"""What a client of a block leaves behind: no socket, however it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_nats.client.plain.client import PlainClient, connected
from django_nats.client.transport.config import TLSConfig
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent
from tests.client.plain.conftest import config_of, soon
from tests.support.certificates import Authority
from tests.support.proxy import Proxy

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return the function of a loop's library that runs a coroutine on a loop of its own."""
    return pytest.importorskip(request.param).run  # type: ignore[no-any-return]


class Ended(Exception):
    """An error of the user."""


async def ordinary(client: PlainClient, proxy: Proxy) -> None:
    pass


async def failed(client: PlainClient, proxy: Proxy) -> None:
    raise Ended


async def failed_as_the_server_hangs(client: PlainClient, proxy: Proxy) -> None:
    proxy.freeze()
    raise Ended


async def failed_as_the_client_leaves_a_server_that_hangs(
    client: PlainClient, proxy: Proxy
) -> None:
    """The end of TLS, which the client has begun, waits for the server."""
    proxy.freeze()
    await client._process_op_err(ConnectionResetError())
    assert await soon(client._transport._io_writer.is_closing)
    raise Ended


async def failed_as_the_connection_is_reset(client: PlainClient, proxy: Proxy) -> None:
    proxy.cut()
    raise Ended


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "block",
    [
        ordinary,
        failed,
        failed_as_the_server_hangs,
        failed_as_the_client_leaves_a_server_that_hangs,
        failed_as_the_connection_is_reset,
    ],
)
def test_nothing_is_left_when_the_loop_of_a_block_has_ended(
    tmp_path: Path, run: Run, block: Callable[..., Coroutine[Any, Any, None]], encrypted: bool
) -> None:
    authority = Authority(tmp_path)
    config = authority.block("127.0.0.1") if encrypted else ""
    sockets: list[Any] = []

    with NatsServer(config=config, jetstream=False) as server, Proxy(server.port) as proxy:
        settings = replace(config_of(server), servers=(proxy.url,))
        if encrypted:
            settings = replace(settings, tls=TLSConfig(ca=authority.ca))

        async def main() -> None:
            async with connected(settings) as client:
                assert isinstance(client, PlainClient)
                sockets.append(client._transport.socket)
                await block(client, proxy)

        if block is ordinary:
            run(main())
        else:
            with pytest.raises(Ended):
                run(main())
        gc.collect()  # pytest fails on the warnings of what is left
        assert [each.fileno() for each in sockets] == [-1]


def test_nothing_is_left_of_a_client_that_is_lost_right_after_its_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    """The end of TLS, which nats-py has begun, waits for the server."""
    log_in = PlainClient.open
    sockets: list[Any] = []
    ends: list[asyncio.Task[None]] = []

    async def logged_in_and_lost(self: PlainClient, *arguments: Any) -> None:
        await log_in(self, *arguments)
        sockets.append(self._transport.socket)
        proxy.freeze()
        ends.append(asyncio.create_task(self._process_op_err(ConnectionResetError())))
        assert await soon(self._transport._io_writer.is_closing)

    authority = Authority(tmp_path)
    server = NatsServer(config=authority.block("127.0.0.1"), jetstream=False)
    monkeypatch.setattr(PlainClient, "open", logged_in_and_lost)

    with server, Proxy(server.port) as proxy:
        settings = replace(config_of(server), servers=(proxy.url,), tls=TLSConfig(ca=authority.ca))

        async def main() -> None:
            with pytest.raises(NotSent, match="lost right after the login"):
                async with connected(settings):
                    pass

        run(main())
        gc.collect()
        assert [each.fileno() for each in sockets] == [-1]
