"""What an attempt to connect leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from django_nats.client.transport import race
from django_nats.client.transport.attempts import Opening, Terms
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.connection import Connection
from django_nats.devserver import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(token="", jetstream=False) as server:
        yield server


def on_a_loop(name: str, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    factory = asyncio.new_event_loop
    if name == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    loop = factory()
    try:
        loop.run_until_complete(function())
    finally:
        loop.close()


def opening(server: NatsServer) -> Opening:
    config = ConnectionConfig((server.url,), connect_timeout=60.0)
    make = partial(Connection, lambda _: None, lambda: None)
    options = {**config.client_options(), "connect_timeout": 60}
    terms = Terms(config, make, options, shuffle=None, announced_in_plain=False)
    return Opening(server.url, "127.0.0.1", server.port, ["127.0.0.1"], terms)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_is_not_used_leaves_nothing_behind(server: NatsServer, loop: str) -> None:
    """Another attempt has made a connection at the same moment."""

    async def lose() -> None:
        this = asyncio.current_task()
        task = asyncio.ensure_future(opening(server).run())
        await task
        race._drop(task)
        await asyncio.sleep(0)
        _, pending = await asyncio.wait(asyncio.all_tasks() - {this}, timeout=60)
        assert not pending

    on_a_loop(loop, lose)
