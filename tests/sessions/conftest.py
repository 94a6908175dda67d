"""Sessions of both engines, through sync and async methods, with a near cache or without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from tests.conftest import MakeCache
from tests.support.outage import Outage
from tests.support.proxy import Proxy
from tests.support.sessions import SESSIONS, SESSIONS_DB, OpenSession, Request

NEAR = {"NEAR_CACHE": {"MISSES": True}}


@pytest.fixture
def use_cache(make_cache: MakeCache, settings: Any) -> MakeCache:
    """Make a cache, as ``make_cache`` does, and keep sessions in it."""

    def use(**params: Any) -> NatsCache:
        cache = make_cache(**params)
        location, given = cache._given
        backend = "django_nats.cache.NatsCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": location, **given}}
        return cache

    return use


@pytest.fixture
def proxy(server: NatsServer, without_doubts: None) -> Iterator[Proxy]:
    with Proxy(server.port, delay=0.001) as running:
        yield running
        process.close()  # before the proxy stops: a session that lost it would try to reconnect


@pytest.fixture
def outage(proxy: Proxy, use_cache: MakeCache, make_cache: MakeCache) -> Outage:
    """Return an outage that has not begun. A test may begin it, after ``use()`` of a cache."""
    make_cache().set("other", 1)  # the bucket is deleted through this cache
    return Outage(proxy, use_cache)


@pytest.fixture(params=[{}, NEAR], ids=["", "near cache"])
def session_cache(request: pytest.FixtureRequest, use_cache: MakeCache) -> NatsCache:
    return use_cache(OPTIONS=request.param)


_WITH_DATABASE = pytest.mark.django_db(
    transaction=True
)  # in a test's transaction, nothing is copied


@pytest.fixture(params=[SESSIONS, pytest.param(SESSIONS_DB, marks=_WITH_DATABASE)])
def engine(request: pytest.FixtureRequest, settings: Any) -> str:
    settings.SESSION_ENGINE = request.param
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def open_session(
    request: pytest.FixtureRequest, engine: str, session_cache: NatsCache
) -> OpenSession:
    return partial(Request, asynchronous=request.param)
