"""Operators change what the server and the account allow, while processes use them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.sessions.backends.cached_db import SessionStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.feed import watcher
from django_nats.client.protocol.server_errors import MAX_CONSUMERS, MAX_STREAMS
from django_nats.counters import Counters, write_behind
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    BucketFull,
    LimitReached,
    NatsError,
    NotServed,
    PermissionDenied,
    Unavailable,
)
from tests.conftest import PATIENT, api
from tests.counters.conftest import api_level
from tests.servers import eventually
from tests.support.following import Following
from tests.support.reloading import LOGIN, Reloading, account


@contextmanager
def serving(config: str) -> Iterator[Reloading]:
    with Reloading(config=config, token="") as server:
        yield server
        process.close()


def make(server: NatsServer, **options: Any) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {**PATIENT, **LOGIN, **options}})


# The cache -----------------------------------------------------------------------------------

OFF = account("disabled")
DENY = 'publish: {{ deny: ["{}"] }}'


def test_jetstream_that_is_switched_off_for_the_account_and_on_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(account()) as server:
        cache, hidden = make(server), make(server, FAIL_OPEN=True)
        cache.set("key", 1)
        server.reload(OFF)
        caplog.clear()
        for _ in range(3):
            with pytest.raises(NotServed, match="django_cache is not served"):
                cache.get("key")
            assert hidden.get("key", "away") == "away"
            assert hidden.set("key", 2) is None
        assert len([each for each in caplog.messages if "is not served" in each]) == 1
        server.reload(account())
        cache.set("key", 3)
        assert hidden.get("key") == 3
        assert caplog.messages.count("The bucket django_cache is served again") == 1


def test_a_server_that_starts_without_jetstream_and_later_with_it() -> None:
    with NatsServer(jetstream=False, token="") as server:
        options = {**PATIENT, "MAX_RECONNECT_WAIT": 0.2}
        cache = NatsCache(server.url, {"OPTIONS": options})
        with pytest.raises(NotServed, match="JetStream is not enabled on the NATS server"):
            cache.set("key", 1)
        assert NatsCache(server.url, {"OPTIONS": {**options, "FAIL_OPEN": True}}).get("key") is None
        server._jetstream = True
        server.restart()
        assert eventually(lambda: stores(cache))
        process.close()


def stores(cache: NatsCache) -> bool:
    try:
        cache.set("key", 1)
    except Unavailable:
        return False
    return bool(cache.get("key") == 1)


def test_the_limit_of_streams_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    with serving(account("{ max_streams: 1 }")) as server:
        make(server, BUCKET="first").set("key", 1)
        cache = make(server, BUCKET="second")
        hidden = make(server, BUCKET="second", FAIL_OPEN=True)
        for _ in range(2):
            with pytest.raises(LimitReached, match="Raise max_streams") as caught:
                cache.set("key", 1)
            assert caught.value.err_code == MAX_STREAMS
            assert hidden.get("key") is None
        assert len([each for each in caplog.messages if "max_streams" in each]) == 1
        server.reload(account("{ max_streams: 2 }"))
        cache.set("key", 2)
        assert hidden.get("key") == 2


def test_the_limit_of_consumers_costs_listings_and_the_near_cache_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher, "_RETRY_REFUSED_S", 0.05)
    monkeypatch.setattr("django_nats.client.operations._last_warning", -math.inf)
    monkeypatch.setattr("django_nats.client.operations._QUIET_S", 3600.0)
    with serving(account()) as server:
        cache = make(server, MAX_ENTRIES=10)
        config = {**cache.bucket.config.stream_config(), "max_consumers": 1}
        assert "error" not in api(cache, f"STREAM.CREATE.{config['name']}", config)
        cache.set("key", 1)
        following = Following(cache, within=3600.0)
        second = Following(make(server, MAX_ENTRIES=10), wait=False)
        second.wait_for(lambda: bool(second.recorder.refusals))
        refused = second.recorder.refusals[0]
        assert isinstance(refused, LimitReached)
        assert refused.err_code == MAX_CONSUMERS
        with pytest.raises(LimitReached, match="raise max_consumers"):
            cache.keys()
        caplog.clear()
        for _ in range(2):
            assert make(server, MAX_ENTRIES=10, FAIL_OPEN=True).keys() == []
        assert len([each for each in caplog.messages if "going on without it" in each]) == 1
        assert cache.get("key") == 1
        following.stop()
        second.wait_for(lambda: bool(second.recorder.proofs))
        second.stop()


@pytest.mark.parametrize(
    ("denied", "failing", "working"),
    [
        ("$KV.>", ("set", "add"), ("get", "keys")),
        ("$JS.API.DIRECT.>", ("get", "get_many"), ("set", "keys")),
        ("$JS.API.CONSUMER.>", ("keys",), ("get", "set")),
    ],
)
def test_permissions_that_are_withdrawn_and_granted_again(
    denied: str, failing: tuple[str, ...], working: tuple[str, ...]
) -> None:
    calls: dict[str, Any] = {
        "get": lambda cache: cache.get("key"),
        "get_many": lambda cache: cache.get_many(["key"]),
        "set": lambda cache: cache.set("key", 1),
        "add": lambda cache: cache.add("new", 1),
        "keys": lambda cache: cache.keys(),
    }
    away: dict[str, Any] = {"get": None, "get_many": {}, "set": None, "add": False, "keys": []}
    with serving(account()) as server:
        cache, hidden = make(server), make(server, FAIL_OPEN=True)
        cache.set("key", 1)
        connection = cache.session.connection
        server.reload(account(permissions=DENY.format(denied)))
        for each in failing:
            with pytest.raises(PermissionDenied):
                calls[each](cache)
            assert calls[each](hidden) == away[each]
        for each in working:
            calls[each](cache)
        server.reload(account())
        for call in calls.values():
            call(cache)
        assert cache.get("key") == 1
        assert cache.session.connection is connection


def test_an_account_that_is_full_takes_values_again_once_its_limit_is_raised() -> None:
    with serving(account("{ max_mem: 300K }")) as server:
        cache, hidden = make(server), make(server, FAIL_OPEN=True)
        assert cache.set_many({str(number): "x" * 20_000 for number in range(100)})
        with pytest.raises(BucketFull, match=r"Raise its limit \(max_mem\)"):
            cache.set("key", "x" * 100_000)
        assert hidden.set("key", "x" * 100_000) is None
        server.reload(account("{ max_mem: 3MB }"))
        cache.set("key", "x" * 100_000)
        assert hidden.get("key") == "x" * 100_000


@pytest.mark.django_db
def test_a_session_of_cached_db_is_not_read_in_its_old_state_without_permission_to_write() -> None:
    with serving(account()) as server:
        location = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url}
        options = {**PATIENT, **LOGIN, "FAIL_OPEN": True}
        with override_settings(CACHES={"default": {**location, "OPTIONS": options}}):
            session = SessionStore()
            session["cart"] = 1
            session.save()
            server.reload(account(permissions=DENY.format("$KV.>")))
            session["cart"] = 2
            session.save()
            assert SessionStore(session.session_key)["cart"] == 2
            assert DatabaseStore(session.session_key)["cart"] == 2
            session.delete()


# The change feed -----------------------------------------------------------------------------


def test_a_feed_waits_while_jetstream_is_switched_off() -> None:
    with serving(account()) as server:
        cache = make(server)
        following = Following(cache)
        server.reload(OFF)
        following.wait_for(lambda: "JetStream not enabled for account" in following.watcher.state)
        assert following.recorder.refusals == []
        server.reload(account())
        following.wait_for(lambda: following.watcher.state == "whole")
        following.stop()


# Counters ------------------------------------------------------------------------------------


def test_increments_are_published_once_jetstream_is_switched_on_again(server: NatsServer) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    with serving(account()) as own:
        options = {"LOCATION": own.url, **LOGIN, **PATIENT, "DEADLINE": 30}
        aliases = {"default": {**options, "FLUSH_INTERVAL": 3000}}
        with override_settings(NATS_COUNTERS=aliases):
            counters = Counters()
            counters.incr("k", 1)
            own.reload(OFF)
            with pytest.raises(NotServed, match="k of the stream COUNTERS was not changed"):
                counters.incr("k", 100)
            counters.incr_later("k", 10)
            with pytest.raises(NatsError) as caught:
                counters.flush(0)
            assert isinstance(caught.value, Unavailable)
            assert counters.pending[:2] == (1, 10)
            own.reload(account())
            counters.flush()
            assert counters.get_many(["k"])["k"] in (10, 11)  # the stream was in memory
        write_behind.discard()
