"""Fixtures for caches with a near cache, and for the other client that changes a key."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.nearcache import NearCache
from tests.cache.conftest import make_twin
from tests.conftest import MakeCache
from tests.support.proxy import Proxy

__all__ = ["make_twin"]

MakeNear = Callable[..., Any]
PATIENT_NEAR = {"MAX_STALE": 30}
"""NEAR_CACHE members with which copies are still served after the machine has stalled."""


def hashed(key: str, prefix: str, version: int) -> str:
    """Return a digest, as a KEY_FUNCTION whose keys cannot be translated back."""
    return hashlib.sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until the condition is true. Return False if it is not within ``seconds``."""
    return eventually(condition, time.monotonic() + seconds)


def near_of(cache: Any) -> NearCache:
    near: NearCache | None = getattr(cache, "plain", cache).near
    assert near is not None
    return near


def follow(cache: Any) -> NearCache:
    """Wait until the near cache makes and serves copies. Return it, without any copy."""
    near = near_of(cache)
    cache.get("first-read", version=99)
    assert soon(lambda: near._copies.fresh_until > time.monotonic()), near
    # With MISSES, the read above has made a copy that tests do not expect.
    near._copies.forget(f"$KV.{cache_bucket(cache)}.=.99.first-read")
    return near


def changes_delivered_to(cache: NatsCache) -> int:
    """Return the number of changes that the near cache has been told by the feed."""
    feed = near_of(cache)._watcher._feed
    if feed is None:
        return 0
    with feed._connection.outstanding.lock:  # a change is counted before it is passed on
        return feed._delivered


def cache_bucket(cache: Any) -> str:
    return str(getattr(cache, "plain", cache).bucket.config.name)


@pytest.fixture
def make_near(make_twin: Callable[..., Any]) -> MakeNear:
    """Make caches whose near cache serves copies. Keywords are members of NEAR_CACHE."""

    def make(params: dict[str, Any] | None = None, **members: Any) -> Any:
        params = dict(params or {})
        members = {**PATIENT_NEAR, **members}
        options = {"NEAR_CACHE": members, **params.pop("OPTIONS", {})}
        cache = make_twin(**params, OPTIONS=options)
        follow(cache)
        return cache

    return make


@pytest.fixture
def near(make_near: MakeNear) -> Any:
    return make_near()


@pytest.fixture
def other(make_cache: MakeCache) -> NatsCache:
    """Return a cache on the same bucket with its own connection, like another process."""
    return make_cache(OPTIONS={"NAME": "another"})


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        process.close()  # before the proxy stops: a session that lost it would try to reconnect
