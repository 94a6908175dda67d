"""Two hundred clients lose their server at the same time and reconnect with jitter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.servers import eventually
from tests.support.proxy import Proxy

CLIENTS = 200
AWAY = 6.0
MOST = 150
"""The most connection attempts per second."""
PATIENCE = 240.0
"""Seconds to wait for all clients; on a quiet machine, all are back after 5."""


async def is_answered(session: Session) -> bool:
    def steps() -> Steps[None]:
        yield Request(Lane("nobody", 10.0), "nobody")

    try:
        await drivers.arun(session, steps())
    except Unavailable:
        return False
    return True


async def all_succeed(sessions: list[Session], ask: Callable[[Session], Awaitable[bool]]) -> bool:
    return all(await asyncio.gather(*map(ask, sessions)))


@pytest.mark.faults
async def test_two_hundred_clients_reconnect_at_a_bounded_rate(own_server: NatsServer) -> None:
    """While the server is dead, a proxy accepts their connections and hangs up."""
    with Proxy(own_server.port) as proxy:
        sessions = [
            process.session(
                ConnectionConfig(
                    (proxy.url,), token=own_server.token, name=f"herd-{n}", connect_timeout=30.0
                )
            )
            for n in range(CLIENTS)
        ]
        assert await all_succeed(sessions, is_answered)
        before = proxy.connections
        killed = time.monotonic()
        own_server.kill()
        await asyncio.sleep(AWAY)  # real time: it is a rate that is bounded

        def have_tried() -> bool:
            return proxy.connections - before > CLIENTS / 2

        assert await asyncio.to_thread(eventually, have_tried)
        tried = proxy.connections - before
        away = time.monotonic() - killed
        await asyncio.to_thread(own_server.start)
        started = time.monotonic()
        while not await all_succeed(sessions, is_answered):
            assert time.monotonic() - started < PATIENCE
            await asyncio.sleep(0.1)
        process.close()
    assert tried < away * MOST
