"""Configurations and clients for the tests of this directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from django_nats.client.plain.client import PlainClient, connect
from django_nats.client.transport.asking import Asking
from django_nats.client.transport.config import ConnectionConfig
from django_nats.devserver import NatsServer

ENTRY = 'CACHES["default"]'


def config_of(server: NatsServer, *others: str, **fields: object) -> ConnectionConfig:
    """Return a configuration for a server, and perhaps others, for a busy machine."""
    common = {"token": server.token, "connect_timeout": 30.0, "entry": ENTRY, "login": "TOKEN"}
    return ConnectionConfig((server.url, *others), **{**common, **fields})  # type: ignore[arg-type]


async def soon(condition: Callable[[], object]) -> bool:
    """Wait until a condition is true, on the running loop."""
    for _ in range(6000):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def opened(config: ConnectionConfig) -> PlainClient:
    """Return a client that reconnects without a pause."""
    client = await connect(config, Asking(config))
    client.reconnect_when_lost()
    client.options["reconnect_time_wait"] = 0.05
    return client


Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return a function that returns what the package has logged so far."""
    return lambda: [each.getMessage() for each in caplog.records if each.name == "django_nats"]
