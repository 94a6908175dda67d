"""When a connection counts as lost because its pings get no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_nats.client.transport import connection
from django_nats.client.transport.connection import Connection
from django_nats.devserver import NatsServer
from tests.client.lanes import PATIENT, ask, session_of, soon


class Unanswered(Connection):
    """A connection that does not count the answers to its pings, or does not get them."""

    pings = 0
    deaf = False

    async def connect(self, *args: Any, **options: Any) -> None:
        await super().connect(*args, **{**options, "ping_interval": 0.01})

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        await super()._send_ping(future)
        self.pings += 1

    async def _process_pong(self) -> None:
        if self.deaf:
            return
        unanswered = self._pings_outstanding
        await super()._process_pong()
        self._pings_outstanding = unanswered


async def test_unanswered_pings_do_not_count_while_other_bytes_arrive(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers may be behind many other bytes, which a slow client has not read yet."""
    monkeypatch.setattr(connection, "Connection", Unanswered)
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 60.0)  # the last bytes came in this time
    session = session_of(server, token=server.token, name="pings")
    await ask(session, PATIENT, "nobody")
    first = session.connection
    assert isinstance(first, Unanswered)
    assert await soon(lambda: first.pings > 10)
    assert not first.lost.done()
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 0.0)  # no bytes have come since
    assert await soon(first.lost.done)
    assert "stale" in str(first.lost.result())


async def test_a_server_that_sends_but_answers_no_ping_counts_as_lost(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that the client sends may arrive there, while heartbeats still arrive here."""
    monkeypatch.setattr(connection, "Connection", Unanswered)
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 60.0)
    session = session_of(server, token=server.token, name="deaf")
    await ask(session, PATIENT, "nobody")
    first = session.connection
    assert isinstance(first, Unanswered)
    first.deaf = True
    assert await soon(first.lost.done)
    assert "stale" in str(first.lost.result())
