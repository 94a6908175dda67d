"""Caches with copies, and the other side of a change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.nearcache import NearCache
from tests.cache.conftest import make_twin
from tests.conftest import MakeCache
from tests.support.proxy import Proxy

__all__ = ["make_twin"]

MakeNear = Callable[..., Any]


def hashed(key: str, prefix: str, version: int) -> str:
    """A KEY_FUNCTION that keeps nothing readable."""
    return hashlib.sha256(f"{prefix}:{version}:{key}".encode()).hexdigest()


def soon(condition: Callable[[], bool], seconds: float = 30) -> bool:
    return eventually(condition, time.monotonic() + seconds)


def near_of(cache: Any) -> NearCache:
    near: NearCache | None = getattr(cache, "plain", cache).near
    assert near is not None
    return near


def follow(cache: Any) -> NearCache:
    """Read once, and wait until copies are made and served; nothing is copied yet."""
    near = near_of(cache)
    cache.get("first-read", version=99)
    assert soon(lambda: near._copies.fresh_until > time.monotonic()), near
    # One that MISSES keeps; it is no test's.
    near._copies.forget(f"$KV.{cache_bucket(cache)}.=.99.first-read")
    return near


def told_by(cache: NatsCache) -> int:
    """How many changes its feed has told of."""
    feed = near_of(cache)._watcher._feed
    return 0 if feed is None else feed._told


def cache_bucket(cache: Any) -> str:
    return str(getattr(cache, "plain", cache)._bucket.config.name)


@pytest.fixture
def make_near(make_twin: Callable[..., Any]) -> MakeNear:
    """Makes caches with a near cache that is at work; keywords are members of NEAR_CACHE."""

    def make(params: dict[str, Any] | None = None, **members: Any) -> Any:
        params = dict(params or {})
        members = {"MAX_STALE": 30, **members}  # a stall leaves no copy unproven
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
    """The same bucket through a connection of its own, as another process has it."""
    return make_cache(OPTIONS={"NAME": "another"})


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        bridge.close()  # before the proxy goes: a session that lost it would try to come back
