"""Fixtures for increments that are published later."""

from __future__ import annotations

import pytest

from django_nats.counters import Counters
from django_nats.stats import Pending
from tests.counters.conftest import Configure, stream_info
from tests.support.ports import free_port

NEVER = 3000
"""A FLUSH_INTERVAL in seconds, longer than any test."""

NOTHING = Pending(0, 0, 0.0, "")


@pytest.fixture
def patient(configure: Configure, counters: Counters) -> Counters:
    """Return Counters whose increments only flush() publishes."""
    return configure(FLUSH_INTERVAL=NEVER)


def messages(counters: Counters) -> int:
    """Return the number of messages that the alias's stream has ever stored."""
    return int(stream_info(counters)["state"]["last_seq"])


@pytest.fixture
def nowhere() -> dict[str, object]:
    """Return options for an address where no server listens."""
    url = f"nats://127.0.0.1:{free_port()}"
    return {"LOCATION": url, "TOKEN": "", "CONNECT_TIMEOUT": 0.2, "FLUSH_INTERVAL": NEVER}
