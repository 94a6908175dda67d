"""What changes a bucket and is announced to nobody: copies of that end with their age."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from tests.conftest import api
from tests.support.near_load import soon

MAX_AGE = 2.5
SLACK = 0.5
"""Seconds that a busy machine may add between two looks."""


@pytest.fixture
def plain(own_server: NatsServer) -> NatsCache:
    return _cache(own_server)


@pytest.fixture
def near(own_server: NatsServer) -> Iterator[NatsCache]:
    yield _cache(own_server, NAME="reader", NEAR_CACHE={"MAX_AGE": MAX_AGE, "MISSES": True})
    bridge.close()


def _cache(server: NatsServer, **options: object) -> NatsCache:
    common = {"BUCKET": "silent", "TOKEN": server.token, "MAX_ENTRIES": 10}
    return NatsCache(server.url, {"OPTIONS": {**common, **options}})


def _purge(plain: NatsCache) -> None:
    api(plain, "STREAM.PURGE.KV_silent")


def _purge_key(plain: NatsCache) -> None:
    api(plain, "STREAM.PURGE.KV_silent", {"filter": "$KV.silent.=.1.key"})


def _delete_message(plain: NatsCache) -> None:
    revision = plain.get_with_revision("key")[1]
    assert api(plain, "STREAM.MSG.DELETE.KV_silent", {"seq": revision})["success"]


def _shrink(plain: NatsCache) -> None:
    config = api(plain, "STREAM.INFO.KV_silent")["config"]
    plain.set("newer", 1)
    api(plain, "STREAM.UPDATE.KV_silent", {**config, "max_msgs": 1})


def _evict(plain: NatsCache) -> None:
    for number in range(10):
        plain.set(f"newer-{number}", number)


@pytest.mark.parametrize("lose", [_purge, _purge_key, _delete_message, _shrink, _evict])
def test_what_nobody_announces(
    plain: NatsCache, near: NatsCache, lose: Callable[[NatsCache], None]
) -> None:
    plain.get("warm-up")
    config = api(plain, "STREAM.INFO.KV_silent")["config"]
    api(plain, "STREAM.DELETE.KV_silent")
    # Of a bucket made by another client: its messages can be deleted one by one.
    api(plain, "STREAM.CREATE.KV_silent", {**config, "deny_delete": False})
    plain.set("key", "value", None)
    assert near.near is not None

    def copied() -> bool:
        assert near.near is not None
        hits = near.near.hits
        return near.get("key") == "value" and near.near.hits > hits

    assert soon(copied)
    flushes = near.near.flushes
    lose(plain)
    lost = time.monotonic()
    assert plain.get("key") is None
    assert near.get("key") == "value"  # else this would show nothing
    last = lost

    def gone() -> bool:
        nonlocal last
        now = time.monotonic()
        if near.get("key") is None:
            return True
        last = now
        return False

    assert soon(gone)
    assert last - lost < MAX_AGE
    assert soon(lambda: near.near.state == "whole")
    assert near.near.flushes == flushes
    # The same value once more is an announcement again.
    plain.set("key", "again")
    assert soon(lambda: near.get("key") == "again", SLACK)
