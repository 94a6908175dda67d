"""Fixtures: aliases of NATS_COUNTERS on the session's server, each with its own streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

from django_nats.client.counters.stream import CounterStream
from django_nats.conf.limit_streams import HORIZONS, LIMITS, QUOTAS
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import memory, refusals
from django_nats.limits.keys import key_token
from tests.counters.conftest import configure, counters
from tests.servers import request

__all__ = ["configure", "counters"]


class Time:
    """The time of the server, and of the process. It moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        """Seconds since 1970."""

    def __call__(self) -> float:
        return self.now

    def begin_window(self, key: str, seconds: int) -> None:
        """Go to the beginning of a window of a key."""
        stagger = crc32(key_token(key, readable=False).encode()) / 2**32
        # By a thousandth of it too late, since rounding could make it too early.
        self.now = (27_000_000 - stagger + 0.001) * seconds

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def delete_streams(server: NatsServer) -> Iterator[None]:
    """Delete the streams of limits and quotas that the test has made on the session's server."""
    yield
    kinds = [f"_{kind}_{each.name}" for kind in (LIMITS, QUOTAS) for each in HORIZONS]
    names: Any = request(server, "$JS.API.STREAM.NAMES")["streams"]
    for name in names or ():
        if name.startswith("test_") and name.endswith(tuple(kinds)):
            request(server, f"$JS.API.STREAM.DELETE.{name}")


@pytest.fixture
def alias(counters: Counters) -> Counters:
    """Set up the default alias, which limits use."""
    return counters


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Replace the clocks by which limits count and remember."""
    made = Time()
    monkeypatch.setattr(CounterStream, "now", lambda stream: made.now)
    for module in (memory, refusals):
        monkeypatch.setattr(module, "monotonic", made)
    return made
