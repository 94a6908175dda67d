"""Buckets that are full: refused values, deletes, log lines and eviction."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.client.kv import full
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import BucketFull
from tests.conftest import MakeCache
from tests.support.answers import MISSING, ack, document, finish, opened, refusal, stored

FULL_BY_BYTES = {"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 8000}
FULL_BY_ENTRIES = {"EVICT": False, "MAX_ENTRIES": 4}


def fill(cache: NatsCache) -> list[str]:
    """Fill a bucket that does not evict, and return the keys that fit."""
    keys = []
    for size in (3000, 0):
        while True:
            key = f"key-{len(keys)}"
            try:
                cache.set(key, "x" * size)
            except BucketFull:
                break
            keys.append(key)
    return keys


@pytest.mark.parametrize("options", [FULL_BY_BYTES, FULL_BY_ENTRIES], ids=["bytes", "entries"])
class TestFullBucket:
    def test_new_values_are_refused(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        cache = make_cache(OPTIONS=options)
        keys = fill(cache)
        for store in (cache.set, cache.add):
            with pytest.raises(BucketFull) as caught:
                store("one-more", "x" * 100)
            assert "':1:one-more' was not stored" in str(caught.value)
            assert cache.bucket.config.name in str(caught.value)
            assert "EVICT" in str(caught.value)
        assert cache.set_many({"one-more": 1, "and-more": 2}) == ["one-more", "and-more"]
        assert len(cache.get_many(keys)) == len(keys)

    def test_fail_open_ignores_refused_values(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        fill(make_cache(OPTIONS=options))
        cache = make_cache(OPTIONS={**options, "FAIL_OPEN": True})
        cache.set("one-more", "x" * 100)
        assert cache.add("one-more", "x" * 100) is False
        assert cache.get_or_set("one-more", 5) == 5
        assert cache.get("one-more") is None

    def test_the_full_bucket_and_its_recovery_are_logged_once(
        self,
        make_cache: MakeCache,
        options: dict[str, object],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(full, "_QUIET_S", 3600.0)
        cache = make_cache(OPTIONS={**options, "FAIL_OPEN": True})
        fill(make_cache(OPTIONS=options))
        assert f"the bucket {cache.bucket.config.name} is full" in caplog.messages[0]
        caplog.clear()
        for _ in range(3):
            cache.set("one-more", "x" * 100)
            cache.add("one-more", "x" * 100)
        cache.clear()
        # A value stored between refused ones does not mean that the bucket has room.
        cache.set("one-more", 1)
        assert not caplog.messages
        monkeypatch.setattr(full, "_QUIET_S", 0.0)
        for _ in range(3):
            cache.set("one-more", 1)
        assert caplog.messages == [f"The bucket {cache.bucket.config.name} takes values again"]

    def test_a_delete_is_not_logged_as_recovery(
        self,
        make_cache: MakeCache,
        options: dict[str, object],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache = make_cache(OPTIONS=options)
        first, second, third, *_ = fill(cache)
        caplog.clear()
        cache.delete(first)
        cache.delete_many([second])
        cache.set(third, 1, 0)
        assert not caplog.messages

    @pytest.mark.parametrize(
        "remove",
        [
            lambda cache, key: cache.delete(key),
            lambda cache, key: cache.delete_many([key, "missing"]),
            lambda cache, key: cache.set(key, "x", 0),
            lambda cache, key: cache.touch(key, -1),
            lambda cache, key: cache.delete_pattern(key),
        ],
        ids=["delete", "delete_many", "set", "touch", "delete_pattern"],
    )
    def test_removing_operations_still_work(
        self, make_cache: MakeCache, options: dict[str, object], remove: Any
    ) -> None:
        cache = make_cache(OPTIONS=options)
        *others, first = fill(cache)  # a small value, whose tombstone needs more room
        remove(cache, first)
        assert cache.get(first) is None
        assert len(cache.get_many(others)) == len(others)
        cache.delete_many(others)
        assert cache.get_many(others) == {}

    def test_a_cleared_bucket_accepts_values_again(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        cache = make_cache(OPTIONS=options)
        keys = fill(cache)
        cache.clear()
        assert cache.get_many(keys) == {}
        cache.set("one-more", 1)
        assert cache.get("one-more") == 1

    def test_delete_returns_whether_there_was_a_value(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        cache = make_cache(OPTIONS=options)
        keys = fill(cache)
        assert cache.delete("missing") is False
        assert cache.delete(keys[-1]) is True
        assert cache.delete(keys[-1]) is False


@pytest.mark.parametrize(
    "options", [{"MAX_ENTRIES": 4}, {"MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 8000}], ids=str
)
def test_a_bucket_that_evicts_drops_the_oldest_values(
    make_cache: MakeCache, options: dict[str, object]
) -> None:
    cache = make_cache(OPTIONS=options)
    keys = [f"key-{number}" for number in range(12)]
    for key in keys:
        cache.set(key, "x" * 4000)
        assert cache.get(key) is not None
    left = [key for key in keys if cache.get(key) is not None]
    assert 2 <= len(left) <= 4
    assert left == keys[-len(left) :]


def test_only_one_of_two_racing_deletes_on_a_full_bucket_returns_true(
    make_cache: MakeCache,
) -> None:
    cache = make_cache(OPTIONS={"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 8000})
    for size in (3000, 0):
        keys = [f"key-{size}-{number}" for number in range(200)]
        assert cache.set_many(dict.fromkeys(keys, "x" * size))

    def perform(request: Request) -> Steps[Reply]:
        return (yield request)

    racing = [cache.bucket.delete(":1:key-0-0") for _ in range(2)]
    effects = [next(steps) for steps in racing]
    results: list[bool] = []
    # Step by step: both deletes are refused before either has made room.
    for turn in [0, 1, 0, 1, 0, 0, 1, 1, 1, 1]:
        if turn in range(len(racing)) and effects[turn] is not None:
            try:
                reply = drivers.run(cache.session, perform(effects[turn]))
                effects[turn] = racing[turn].send(reply)
            except StopIteration as end:
                results.append(end.value)
                effects[turn] = None
    assert sorted(results) == [False, True]


def test_pop_returns_a_value_that_replaced_the_one_to_be_purged() -> None:
    purged = [[document({"purged": number})] for number in (0, 1)]
    full, read, reread = refusal(10077), stored(7), stored(8)
    popped, _ = finish(
        opened().pop(":1:k"), read, full, purged[0], reread, full, purged[1], [ack(9)]
    )
    assert popped.revision == 8
    deleted, _ = finish(opened().delete(":1:k"), read, full, purged[0], MISSING)
    assert deleted is False
