"""Changes of a bucket that the server does not announce: copies expire with MAX_AGE."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.kv import copies
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT, api
from tests.support.answers import Clock
from tests.support.near_load import soon

MAX_AGE = 2.5


@pytest.fixture
def plain(own_server: NatsServer) -> NatsCache:
    return _cache(own_server)


@pytest.fixture
def near(own_server: NatsServer) -> Iterator[NatsCache]:
    yield _cache(
        own_server, NAME="reader", NEAR_CACHE={"MAX_AGE": MAX_AGE, "MAX_STALE": 600, "MISSES": True}
    )
    process.close()


def _cache(server: NatsServer, **options: object) -> NatsCache:
    common = {"BUCKET": "silent", "TOKEN": server.token, "MAX_ENTRIES": 10, **PATIENT}
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
def test_a_copy_of_a_silently_removed_value_expires_with_max_age(
    plain: NatsCache,
    near: NatsCache,
    lose: Callable[[NatsCache], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    clock.now = time.monotonic()
    monkeypatch.setattr(copies, "monotonic", clock)  # the age of copies
    plain.get("warm-up")
    config = api(plain, "STREAM.INFO.KV_silent")["config"]
    api(plain, "STREAM.DELETE.KV_silent")
    # As another client may create it: its messages can be deleted one by one.
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
    assert plain.get("key") is None
    assert near.get("key") == "value"  # the copy is still served
    clock.now += MAX_AGE
    assert near.get("key") is None
    assert soon(lambda: near.near.state == "whole")
    assert near.near.flushes == flushes
    # A new write is announced again.
    plain.set("key", "again")
    assert soon(lambda: near.get("key") == "again")
