"""cache.watch: what it tells of, what it leaves out, and what can be read while it does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeCache


def first_of(changes: Any, count: int) -> list[Any]:
    return [next(changes) for _ in range(count)]


def test_begins_with_a_gap_and_tells_of_sets_and_deletes(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.set("before", 1)
    changes = iter(cache.watch())
    assert next(changes).gap
    cache.set("a", 1)
    cache.set("b", 2)
    cache.delete("a")
    told = first_of(changes, 3)
    assert [(each.key, each.deleted, each.gap) for each in told] == [
        ("a", False, False),
        ("b", False, False),
        ("a", True, False),
    ]
    assert told[0].revision < told[1].revision < told[2].revision
    changes.close()


async def test_may_be_gone_through_on_an_event_loop(make_cache: MakeCache) -> None:
    cache = make_cache()
    told = []
    async for change in cache.watch("a*"):
        if change.gap:
            await cache.aset("b", 1)
            await cache.aset("a1", 1)
        told.append(change.key)
        if change.key == "a1":
            break
    assert told == [None, "a1"]


def test_tells_of_one_version_and_pattern(make_cache: MakeCache) -> None:
    cache = make_cache(KEY_PREFIX="web")
    changes = iter(cache.watch("user:*", version=2))
    assert next(changes).gap
    cache.set("user:1", "other version")
    cache.set("order:1", "other key", version=2)
    cache.set("user:2", "this", version=2)
    assert next(changes).key == "user:2"
    changes.close()


def test_a_clear_is_a_gap(make_cache: MakeCache) -> None:
    cache = make_cache()
    changes = iter(cache.watch("user:*"))
    assert next(changes).gap
    cache.clear()
    assert next(changes).gap
    changes.close()


def test_what_is_told_of_can_be_read_at_once_with_a_near_cache(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
    bucket = cache._config.bucket.name
    other = make_cache(OPTIONS={"BUCKET": bucket, "NAME": "another process"})
    other.set("flag", "old")
    while cache.near is None or not cache.near.hits:
        cache.get("flag")
    # As if its own feed were slower than the watch's.
    monkeypatch.setattr(cache.near._follower, "changed", lambda *told: None)
    changes = iter(cache.watch("flag"))
    assert next(changes).gap
    assert cache.get("flag") == "old"
    other.set("flag", "new")
    assert next(changes).key == "flag"
    assert cache.get("flag") == "new"

    other.clear()
    assert next(changes).gap
    assert cache.get("flag") is None
    changes.close()
