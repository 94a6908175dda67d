"""Clocks that tests move, a session, and another client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from time import monotonic

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import process
from django_nats.client.counters import doubts, failures, increments
from django_nats.client.kv import bucket, copies, full, writing
from django_nats.client.streams import clock as clock_module
from django_nats.client.streams import facts, opening, stream
from django_nats.client.transport import (
    connection,
    hearing,
    incoming,
    outgoing,
    pending,
    session,
    timeouts,
)
from django_nats.client.transport.config import ConnectionConfig
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support.answers import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of operations and copies. It stands still unless a test moves it."""
    made = Clock()
    for module in (
        bucket,
        clock_module,
        copies,
        doubts,
        facts,
        failures,
        full,
        increments,
        opening,
        stream,
        writing,
    ):
        monkeypatch.setattr(module, "monotonic", made)
    return made


@pytest.fixture
def waiting_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Replace the clock of connections. No request times out unless a test moves it."""
    made = Clock()
    made.now = monotonic()
    for module in (connection, hearing, incoming, outgoing, pending, session, timeouts):
        monkeypatch.setattr(module, "monotonic", made)
    yield made
    process.close()


@pytest.fixture(name="session")
def session_on_the_server(server: NatsServer) -> session.Session:
    config = ConnectionConfig(
        (server.url,),
        token=server.token,
        name="circuit",
        connect_timeout=PATIENT["CONNECT_TIMEOUT"],
    )
    made = process.session(config)
    # If the server was slow, a timeout of an earlier test may have opened the circuit.
    assert eventually(lambda: made._fault is None)
    return made


@pytest.fixture
async def service(server: NatsServer) -> AsyncIterator[Client]:
    """Connect another client, which answers as the test says or does not answer at all."""
    client = await nats.connect(server.url, token=server.token, connect_timeout=60)
    yield client
    await client.close()
