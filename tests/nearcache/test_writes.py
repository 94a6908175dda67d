"""Whose writes are seen when: one's own at once, others' as soon as they are told."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.conftest import MakeCache, api
from tests.nearcache.conftest import MakeNear, near_of, soon
from tests.support.process import run_in_processes

# One's own writes ----------------------------------------------------------------------------

OWN: dict[str, tuple[Callable[[Any], object], object]] = {
    "set": (lambda cache: cache.set("key", 2), 2),
    "set for a time": (lambda cache: cache.set("key", 2, 1000), 2),
    "set timeout=0": (lambda cache: cache.set("key", 2, 0), None),
    "set nx": (lambda cache: cache.set("key", 2, nx=True), 1),
    "set nx absent": (lambda cache: cache.set("absent", 2, nx=True), 2),
    "set revision": (
        lambda cache: cache.set("key", 2, revision=cache.get_with_revision("key")[1]),
        2,
    ),
    "set revision timeout=0": (
        lambda cache: cache.set("key", 2, 0, revision=cache.get_with_revision("key")[1]),
        None,
    ),
    "add": (lambda cache: cache.add("absent", 2), 2),
    "set_many": (lambda cache: cache.set_many({"key": 2}), 2),
    "set_many timeout=0": (lambda cache: cache.set_many({"key": 2}, 0), None),
    "get_or_set": (lambda cache: cache.get_or_set("absent", 2), 2),
    "incr": (lambda cache: cache.incr("key"), 2),
    "decr": (lambda cache: cache.decr("key"), 0),
    "incr_version": (lambda cache: cache.incr_version("key"), None),
    "decr_version": (lambda cache: cache.decr_version("key"), None),
    "update": (lambda cache: cache.update("key", lambda value: value + 1), 2),
    "touch": (lambda cache: cache.touch("key", 1000), 1),
    "touch timeout=0": (lambda cache: cache.touch("key", 0), None),
    "expire": (lambda cache: cache.expire("key", 0), None),
    "pexpire": (lambda cache: cache.pexpire("key", 0), None),
    "expire_at": (lambda cache: cache.expire_at("key", timezone.now() - timedelta(1)), None),
    "persist": (lambda cache: cache.persist("key"), 1),
    "delete": (lambda cache: cache.delete("key"), None),
    "delete_many": (lambda cache: cache.delete_many(["key"]), None),
    "delete_pattern": (lambda cache: cache.delete_pattern("k*"), None),
    "clear": (lambda cache: cache.clear(), None),
}
ABSENT = {"set nx absent", "add", "get_or_set"}
"""Those that are for a key without a value."""
READING = {"get", "get_many", "has_key", "get_with_revision", "ttl", "pttl", "keys", "iter_keys"}
OTHERWISE = {"stats", "watch"}


def test_every_method_that_writes_is_among_these() -> None:
    operations = {
        name[1:]
        for name in dir(NatsCache)
        if name[1:] and hasattr(NatsCache, f"a{name[1:]}") and name.startswith("_")
        if inspect.isgeneratorfunction(getattr(NatsCache, name))
    }
    assert operations - READING - OTHERWISE == {name.split()[0] for name in OWN}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("misses", [False, True])
def test_own_writes_are_read_at_once(make_near: MakeNear, name: str, misses: bool) -> None:
    cache = make_near(MISSES=misses)
    operation, expected = OWN[name]
    key = "absent" if name in ABSENT else "key"
    for _ in range(3):
        cache.set("key", 1, 500)
        cache.delete("absent")
        assert (cache.get("key"), cache.get("absent")) == (1, None)  # which makes copies

        operation(cache)

        assert cache.get(key) == expected
        assert cache.get_many([key]) == ({} if expected is None else {key: expected})
        assert cache.has_key(key) is (expected is not None)


def test_another_version_is_moved_to_at_once(make_near: MakeNear) -> None:
    cache = make_near(MISSES=True)
    cache.set("key", 1)
    assert cache.get("key", version=2) is None
    cache.incr_version("key")
    assert cache.get("key", version=2) == 1


def test_own_writes_are_copied(near: Any) -> None:
    counted = near_of(near)
    near.set("set", 1)
    near.set_many({"many": 1})
    near.add("added", 1)
    near.incr("set")
    hits = counted.hits
    assert near.get_many(["set", "many", "added"]) == {"set": 2, "many": 1, "added": 1}
    assert counted.hits - hits == 3


def test_own_writes_are_read_at_once_by_every_alias_of_the_connection(
    make_near: MakeNear, make_cache: MakeCache
) -> None:
    one, two = make_near(MAX_ENTRIES=100), make_near(MAX_ENTRIES=200, KEYS=["k*"])
    without = make_cache()
    assert near_of(one) is not near_of(two)
    for number, writer in enumerate([one, two, without] * 5):
        writer.set("key", number)
        assert (one.get("key"), two.get("key")) == (number, number)
    without.clear()
    assert (one.get("key"), two.get("key")) == (None, None)


def test_aliases_with_the_same_settings_share_copies(make_near: MakeNear) -> None:
    one, two = make_near(KEYS=["k*"]), make_near({"TIMEOUT": 5}, KEYS=["k*"])
    one.set("key", 1)
    hits = near_of(two).hits
    assert near_of(one) is near_of(two)
    assert two.get("key") == 1
    assert near_of(two).hits == hits + 1


# Others' writes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in OWN if name not in ("set nx",)])
def test_others_writes_are_seen(make_near: MakeNear, other: NatsCache, name: str) -> None:
    cache = make_near(MISSES=True)
    near = near_of(cache)
    operation, expected = OWN[name]
    key = "absent" if name in ABSENT else "key"
    other.set("key", 1, 500)
    assert soon(lambda: cache.get("key") == 1 and near.entries == 1)
    assert cache.get(key) in (1, None)
    copied = near.entries
    flushes = near.flushes

    operation(other)

    assert soon(lambda: near.entries < copied)  # before anybody reads
    assert cache.get(key) == expected
    assert near.flushes == flushes


def test_another_process_is_seen(near: Any, server: NatsServer) -> None:
    near.set("key", 1)
    plain = near.plain
    assert run_in_processes(server, plain, "print(cache.get('key')); cache.set('key', 2)") == ["1"]
    assert soon(lambda: near.get("key") == 2)


def test_a_change_is_never_taken_back(near: Any, other: NatsCache) -> None:
    seen = []
    for number in range(300):
        (other if number % 2 else near).set("key", number)
        seen.append(near.get("key"))
        if number % 2 == 0:
            assert seen[-1] == number
    assert seen == sorted(seen)
    assert soon(lambda: near.get("key") == 299)


def test_a_bucket_that_is_made_anew_is_noticed(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(MAX_STALE=0.3)
    near = near_of(cache)
    for number in range(5):
        cache.set(f"key-{number}", "old")
    assert near.entries == 5
    api(other, f"STREAM.DELETE.{other._bucket.config.stream}")
    for number in range(9):
        other.set(f"key-{number}", "new")
    assert soon(lambda: cache.get("key-1") == "new")
    assert soon(lambda: near.state == "whole" and near._copies.fresh_until > time.monotonic())
    assert near.flushes >= 1
    cache.set("key-1", "newer")
    hits = near.hits
    assert cache.get("key-1") == "newer"
    assert near.hits == hits + 1
