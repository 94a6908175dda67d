"""Fixtures: servers that a test may query, pause and kill, and programs that run against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.support.cluster import MONITORED
from tests.support.ports import free_port
from tests.support.scripts import Ended, run_script

TIMEOUT = 0.5
"""Timeout in seconds of a request that the test expects no answer to; set by hurry()."""

MakeOwn = Callable[..., NatsCache]


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    """Start a server for this test only; its monitoring port reports the number of clients."""
    with NatsServer(port=free_port(), config=MONITORED) as running:
        yield running
        process.close()


@pytest.fixture
def make_own(own_server: NatsServer) -> MakeOwn:
    """Return a factory of caches on the test's own server, or on a proxy in front of it."""

    def make(location: object = None, **options: object) -> NatsCache:
        common = {"BUCKET": "own", "TOKEN": own_server.token, **PATIENT}
        return NatsCache(location or own_server.url, {"OPTIONS": {**common, **options}})

    return make


@pytest.fixture
def own(make_own: MakeOwn) -> NatsCache:
    """Return a connected cache on the test's own server, with one value."""
    cache = make_own()
    cache.set("key", "value")
    return cache


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Return the kind of event loop that a program's background thread runs."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture
def script(loop: str, own_server: NatsServer) -> Callable[..., Ended]:
    """Return a function that runs a program with ``cache`` on the test's own server."""

    def run(code: str, *, location: str = "", **kwargs: object) -> Ended:
        where = (location or own_server.url, "own", own_server.token)
        return run_script(code, *where, loop=loop, **kwargs)  # type: ignore[arg-type]

    return run


@pytest.fixture
def total(own_server: NatsServer) -> Iterator[Callable[[], int]]:
    """Return a function that reads the total of the counter ``k``, as another process sees it."""
    alias = {"LOCATION": own_server.url, "TOKEN": own_server.token, **PATIENT, "DEADLINE": 30.0}
    aliases = {"default": alias}
    with override_settings(NATS_COUNTERS=aliases):
        yield Counter("k").value
