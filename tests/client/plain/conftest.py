"""Configurations and clients for the tests of this directory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_nats.client.transport.config import ConnectionConfig
from django_nats.devserver import NatsServer

ENTRY = 'CACHES["default"]'


def config_of(server: NatsServer, *others: str, **fields: object) -> ConnectionConfig:
    """Return a configuration for a server, and perhaps others, for a busy machine."""
    common = {"token": server.token, "connect_timeout": 30.0, "entry": ENTRY, "login": "TOKEN"}
    return ConnectionConfig((server.url, *others), **{**common, **fields})  # type: ignore[arg-type]


Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return a function that returns what the package has logged so far."""
    return lambda: [each.getMessage() for each in caplog.records if each.name == "django_nats"]
