"""Fixtures: NATS_COUNTERS on the session's server, and requests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_nats.devserver import NatsServer
from tests.counters.conftest import PATIENT, api_level
from tests.servers import request, streams


@pytest.fixture
def counting(server: NatsServer) -> Iterator[None]:
    """Let limits count on the session's server, in streams of this test."""
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    stream = f"test_{secrets.token_hex(4)}"
    entry = {"LOCATION": server.url, "TOKEN": server.token, "STREAM": stream, **PATIENT}
    with override_settings(NATS_COUNTERS={"default": entry}):
        yield
    for each in streams(server) or ():
        if stream in each:  # that of zeroed_counters() is named after it
            request(server, f"$JS.API.STREAM.DELETE.{each}")
