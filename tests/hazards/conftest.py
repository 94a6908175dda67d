"""Servers that may be asked, paused and killed, and programs that run against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from tests.support.cluster import MONITORED
from tests.support.ports import free_port
from tests.support.scripts import Ended, run_script

TIMEOUT = 0.5
"""REQUEST_TIMEOUT of these tests, in seconds."""

MakeOwn = Callable[..., NatsCache]


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    """A server of the test's own, which can be asked how many clients it has."""
    with NatsServer(port=free_port(), config=MONITORED) as running:
        yield running
        bridge.close()


@pytest.fixture
def make_own(own_server: NatsServer) -> MakeOwn:
    """Makes caches on the test's own server, or through a proxy before it."""

    def make(location: object = None, **options: object) -> NatsCache:
        common = {"BUCKET": "own", "TOKEN": own_server.token, "REQUEST_TIMEOUT": TIMEOUT}
        return NatsCache(location or own_server.url, {"OPTIONS": {**common, **options}})

    return make


@pytest.fixture
def own(make_own: MakeOwn) -> NatsCache:
    """A cache on the test's own server, connected, and with a value."""
    cache = make_own()
    cache.set("key", "value")
    return cache


@pytest.fixture(params=["asyncio", "uvloop"])
def script(request: pytest.FixtureRequest, own_server: NatsServer) -> Callable[..., Ended]:
    """Runs a program that finds ``cache`` on the test's own server, on either kind of loop."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")

    def run(code: str, *, location: str = "", **kwargs: object) -> Ended:
        where = (location or own_server.url, "own", own_server.token)
        return run_script(code, *where, loop=request.param, **kwargs)  # type: ignore[arg-type]

    return run
