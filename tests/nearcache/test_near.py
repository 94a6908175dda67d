"""Reads from copies through the cache, by the sync and by the async methods."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client.kv import copies
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.cache.conftest import MakeTwin, publish
from tests.conftest import MakeCache
from tests.nearcache.conftest import (
    PATIENT_NEAR,
    MakeNear,
    follow,
    hashed,
    near_of,
    soon,
)
from tests.support.answers import Clock
from tests.support.operations import CACHE, HELD, LIVES_S
from tests.support.patience import hurried, hurry
from tests.support.proxy import Proxy

# What is served from copies ------------------------------------------------------------------


@pytest.fixture
def proxied_near_cache(
    without_doubts: None, make_near: MakeNear, make_cache: MakeCache, proxy: Proxy
) -> Any:
    """Return a near cache behind the proxy with copies of the table's initial values."""
    make_cache().set(
        "key", 1
    )  # teardown deletes the bucket through this cache, which is not behind the proxy
    proxied_near_cache = make_near({"location": proxy.url})
    proxied_near_cache.set_many(HELD, LIVES_S)
    proxied_near_cache.get_many([*HELD])
    return proxied_near_cache


@pytest.mark.parametrize("row", [row for row in CACHE if not CACHE[row].writes])
def test_only_reads_served_from_copies_send_no_request(
    proxied_near_cache: Any, proxy: Proxy, row: str
) -> None:
    call = CACHE[row].at(proxied_near_cache.get_with_revision("key")[1])
    before = proxy.requests
    assert call.result == call.sync(proxied_near_cache)
    asked = proxy.requests - before
    assert asked == 0 if call.served or not call.asks else asked >= call.round_trips


def test_incr_takes_two_requests_despite_a_copy(proxied_near_cache: Any, proxy: Proxy) -> None:
    before = proxy.requests
    assert proxied_near_cache.incr("key") == 2
    assert proxy.requests - before == 2


def test_hits_and_misses_are_counted(near: Any) -> None:
    counted = near_of(near)
    near.set("key", 1)
    hits, misses = counted.hits, counted.misses

    near.get("key")
    near.get_many(["key", "absent"])
    near.get("absent")

    assert (counted.hits - hits, counted.misses - misses) == (2, 2)


def test_the_statistics_of_the_cache_count_near_hits(near: Any) -> None:
    near.set("key", 1)
    before = near.stats()
    for _ in range(3):
        assert near.get("key") == 1
    assert near.stats().hits == before.hits + 3


def test_only_keys_of_the_patterns_are_copied(make_near: MakeNear) -> None:
    cache = make_near({"KEY_PREFIX": "site:a"}, KEYS=["flags:*", "config"])
    near = near_of(cache)
    for key in ("flags:a", "flags:b:c", "config", "flagship", "config:a", "other:flags:a"):
        cache.set(key, 1)
        cache.set(key, 2, version=2)
    assert near.entries == 6
    hits = near.hits
    wanted = ["flags:a", "flags:b:c", "config"]
    assert cache.get_many(wanted, version=2) == dict.fromkeys(wanted, 2)
    assert near.hits - hits == 3
    assert cache.get("flagship") == 1
    assert near.hits - hits == 3


def test_keys_of_a_hashing_key_function_are_copied(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near({"KEY_FUNCTION": hashed})
    cache.set("key", 1)
    assert near_of(cache).entries == 1
    other.key_func = hashed
    other.set("key", 2)
    assert soon(lambda: cache.get("key") == 2)


tenant = ContextVar("tenant", default="public")


def tenant_key(key: str, prefix: str, version: int) -> str:
    return f"{tenant.get()}:{prefix}:{version}:{key}"


def test_tenants_share_one_near_cache(make_cache: MakeCache) -> None:
    """Under ASGI, Django makes a cache object for every request."""

    def of(name: str) -> NatsCache:
        tenant.set(name)
        options = {"NEAR_CACHE": {**PATIENT_NEAR, "KEYS": ["flags:*"]}}
        return make_cache(KEY_FUNCTION=tenant_key, OPTIONS=options)

    near = follow(of("one"))
    for name in ("one", "two"):
        of(name).set("flags:a", name)
        assert near_of(of(name)) is near
    hits = near.hits
    for name in ("one", "two"):
        assert of(name).get("flags:a") == name
    assert (near.hits, near.entries) == (hits + 2, 2)


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_long_keys_are_copied(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(KEYS=["flags:*"])
    key = f"flags:{'x' * 3000}"
    cache.set(key, 1)
    hits = near_of(cache).hits
    assert cache.get(key) == 1
    assert near_of(cache).hits == hits + 1
    other.set(key, 2)
    assert soon(lambda: cache.get(key) == 2)


# What is not copied --------------------------------------------------------------------------


def test_a_copy_expires_when_its_value_does(
    make_near: MakeNear, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_near(MAX_AGE=3000, MAX_STALE=3000)
    near, clock = near_of(cache), Clock()
    clock.now = time.monotonic()
    monkeypatch.setattr(copies, "monotonic", clock)
    cache.set("key", 1, 100)
    hits, misses = near.hits, near.misses
    clock.now += 99
    assert cache.get("key") == 1
    assert (near.hits, near.misses) == (hits + 1, misses)
    clock.now += 99
    assert cache.get("key") == 1  # on the server it has not expired
    assert (near.hits, near.misses) == (hits + 1, misses + 1)


def test_a_copy_is_read_again_after_max_age(make_near: MakeNear) -> None:
    cache = make_near(MAX_AGE=0.3)
    cache.set("key", 1)
    misses = near_of(cache).misses
    assert soon(lambda: cache.get("key") == 1 and near_of(cache).misses > misses)


def test_misses_are_copied_with_the_option(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(MISSES=True)
    near = near_of(cache)
    for _ in range(2):
        assert cache.get("absent", "default") == "default"
        assert cache.get_many(["absent"]) == {}
        assert not cache.has_key("absent")
    assert near.misses - near.hits < 1
    assert near.entries == 1
    other.add("absent", 1)
    assert soon(lambda: cache.get("absent") == 1)
    other.delete("absent")
    assert soon(lambda: cache.get("absent") is None)
    assert cache.get_or_set("absent", 2) == 2
    assert cache.get("absent") == 2


def test_misses_are_not_copied_by_default(near: Any) -> None:
    near.get("absent")
    near.get_many(["absent"])
    assert near_of(near).entries == 0


def test_a_value_that_is_too_large_is_not_copied(make_near: MakeNear) -> None:
    cache = make_near(MAX_BYTES=5000)
    large = os.urandom(5000)
    cache.set("small", 1)
    cache.set("large", large)
    assert cache.get("large") == large
    assert near_of(cache).entries == 1
    assert near_of(cache).bytes < 5000


def test_max_bytes_limits_the_copies(make_near: MakeNear) -> None:
    cache = make_near(MAX_BYTES="20kB")
    values = {f"key-{number}": os.urandom(3000) for number in range(20)}
    cache.set_many(values)
    assert cache.get_many(values) == values
    assert 3 <= near_of(cache).entries <= 6
    assert 10_000 < near_of(cache).bytes <= 20_000


def test_the_least_recently_read_copy_is_evicted(make_near: MakeNear) -> None:
    cache = make_near(MAX_ENTRIES=2)
    near = near_of(cache)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.get("a")
    cache.set("c", 3)
    hits, misses = near.hits, near.misses
    assert (cache.get("a"), cache.get("c")) == (1, 3)
    assert (near.entries, near.hits - hits) == (2, 2)
    assert cache.get("b") == 2
    assert near.misses == misses + 1


@pytest.mark.parametrize("line", ["KV-Operation:DEL", "KV-Operation: DEL"])
def test_a_copy_ends_with_a_delete_by_another_client(
    near: Any, other: NatsCache, line: str
) -> None:
    near.set("key", 1)
    assert near.get("key") == 1

    publish(other, "key", b"", line)

    assert soon(lambda: near.get("key") is None)
    assert near.get_many(["key"]) == {}


# Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: [1], lambda: {"a": [1]}, lambda: ([1],), bytearray])
def test_callers_get_separate_objects(near: Any, make: Callable[[], Any]) -> None:
    own = make()
    near.set("key", own)
    hits = near_of(near).hits
    for value in (own, near.get("key"), near.get_many(["key"])["key"], near.get_or_set("key", 1)):
        inner = value["a"] if isinstance(value, dict) else value
        (inner[0] if isinstance(inner, tuple) else inner).append(9)
    assert near.get("key") == make()
    assert near_of(near).hits == hits + 4


@pytest.mark.parametrize("value", ["text", b"bytes", 7, 2.5, True, None, "x" * 5000])
def test_immutable_values_keep_their_type(near: Any, value: object) -> None:
    near.set("key", value)
    for _ in range(3):
        found = near.get("key", "default")
        assert found == value
        assert type(found) is type(value)


def test_each_alias_reads_copies_by_its_own_serializer(
    make_near: MakeNear, caplog: pytest.LogCaptureFixture
) -> None:
    pickle = make_near()
    json_only = make_near({"OPTIONS": {"SERIALIZER": "django_nats.serializers.JSONSerializer"}})
    assert near_of(json_only) is near_of(pickle)
    pickle.set("key", "text")
    assert pickle.get("key") == "text"
    assert json_only.get("key") is None
    assert "counts as missing" in caplog.text
    json_only.set("key", "other")
    assert json_only.get("key") == "other"
    assert pickle.get("key") is None
    assert near_of(pickle).entries == 1


# The server is unreachable -------------------------------------------------------------------


@pytest.mark.parametrize("fail_open", [False, True])
def test_copies_are_dropped_while_the_server_is_unreachable(
    make_twin: MakeTwin, own_server: NatsServer, fail_open: bool
) -> None:
    options = {"STORAGE": "file", "FAIL_OPEN": fail_open, "NEAR_CACHE": PATIENT_NEAR}
    cache = make_twin(on=own_server, OPTIONS=options)
    near = follow(cache)
    cache.set("key", 1)

    own_server.kill()
    assert soon(lambda: near.entries == 0)
    assert near.flushes == 1
    if fail_open:
        assert cache.get("key", "default") == "default"
        assert cache.get_many(["key"]) == {}
        assert cache.get_or_set("key", 2) == 2
    else:
        with pytest.raises(Unavailable):
            cache.get("key")
    assert soon(lambda: "connection" in near.state.lower())

    own_server.start()
    with hurried(
        getattr(cache, "plain", cache), 1.0
    ):  # a server that is starting may lose a request
        assert soon(lambda: can_read_again(cache))
    assert soon(lambda: near.state == "whole")
    assert soon(lambda: cache.get("key") == 1 and near.entries == 1)


def can_read_again(cache: Any) -> bool:
    try:
        return bool(cache.get("key") == 1)
    except Unavailable:
        return False


def test_copies_are_served_no_longer_than_max_stale_if_the_server_hangs(
    make_twin: MakeTwin, own_server: NatsServer
) -> None:
    options = {"NEAR_CACHE": {"MAX_STALE": 0.5}, "FAIL_OPEN": True}
    cache = make_twin(on=own_server, OPTIONS=options)
    near = follow(cache)
    cache.set("key", 1)
    own_server.pause()
    paused = time.monotonic()
    hurry(getattr(cache, "plain", cache), 0.3)
    latest = 0.0
    while True:
        asked = time.monotonic()
        if cache.get("key") is None:
            break
        latest = asked
    assert latest - paused < 0.5
    assert near.state != "whole"
    own_server.resume()
    assert soon(lambda: cache.get("key") == 1 and near.entries == 1)
