from __future__ import annotations

from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.client.steps import Request, Steps
from django_nats.client.wire import Reply
from django_nats.exceptions import BucketFull
from tests.conftest import MakeCache

FULL_BY_BYTES = {"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 8000}
FULL_BY_ENTRIES = {"EVICT": False, "MAX_ENTRIES": 4}


def fill(cache: NatsCache) -> list[str]:
    """Fill a bucket that does not evict, to the last byte that matters; the keys that fit."""
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
class TestBrimful:
    def test_it_takes_nothing_more(self, make_cache: MakeCache, options: dict[str, object]) -> None:
        cache = make_cache(OPTIONS=options)
        keys = fill(cache)
        for store in (cache.set, cache.add):
            with pytest.raises(BucketFull) as caught:
                store("one-more", "x" * 100)
            assert "':1:one-more' was not stored" in str(caught.value)
            assert cache._bucket.config.name in str(caught.value)
            assert "EVICT" in str(caught.value)
        assert cache.set_many({"one-more": 1, "and-more": 2}) == ["one-more", "and-more"]
        assert len(cache.get_many(keys)) == len(keys)

    def test_it_lets_a_page_go_on_under_fail_open(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        fill(make_cache(OPTIONS=options))
        cache = make_cache(OPTIONS={**options, "FAIL_OPEN": True})
        cache.set("one-more", "x" * 100)
        assert cache.add("one-more", "x" * 100) is False
        assert cache.get_or_set("one-more", 5) == 5
        assert cache.get("one-more") is None

    def test_it_says_once_that_it_is_full_and_once_that_it_is_not(
        self,
        make_cache: MakeCache,
        options: dict[str, object],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache = make_cache(OPTIONS={**options, "FAIL_OPEN": True})
        fill(make_cache(OPTIONS=options))
        assert f"The bucket {cache._bucket.config.name} is full" in caplog.messages[0]
        caplog.clear()
        for _ in range(3):
            cache.set("one-more", "x" * 100)
            cache.add("one-more", "x" * 100)
        assert not caplog.messages
        cache.clear()
        for _ in range(3):
            cache.set("one-more", 1)
        assert caplog.messages == [f"The bucket {cache._bucket.config.name} takes values again"]

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
    def test_what_removes_still_does(
        self, make_cache: MakeCache, options: dict[str, object], remove: Any
    ) -> None:
        cache = make_cache(OPTIONS=options)
        *others, first = fill(cache)  # small: its tombstone takes more room than it gave
        remove(cache, first)
        assert cache.get(first) is None
        assert len(cache.get_many(others)) == len(others)
        cache.delete_many(others)
        assert cache.get_many(others) == {}

    def test_once_cleared_it_takes_values_again(
        self, make_cache: MakeCache, options: dict[str, object]
    ) -> None:
        cache = make_cache(OPTIONS=options)
        keys = fill(cache)
        cache.clear()
        assert cache.get_many(keys) == {}
        cache.set("one-more", 1)
        assert cache.get("one-more") == 1

    def test_deleting_tells_whether_there_was_a_value(
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
def test_a_bucket_that_evicts_drops_what_was_written_first(
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


def test_of_two_deletes_on_a_brimful_bucket_one_says_so(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 8000})
    for size in (3000, 0):
        keys = [f"key-{size}-{number}" for number in range(200)]
        assert cache.set_many(dict.fromkeys(keys, "x" * size))

    def perform(request: Request) -> Steps[Reply]:
        return (yield request)

    racing = [cache._bucket.delete(":1:key-0-0") for _ in range(2)]
    effects = [next(steps) for steps in racing]
    results: list[bool] = []
    # Step by step, both meet the full bucket before either has made room.
    for turn in [0, 1, 0, 1, 0, 0, 1, 1, 1, 1]:
        if turn in range(len(racing)) and effects[turn] is not None:
            try:
                reply = bridge.run(cache.session, perform(effects[turn]))
                effects[turn] = racing[turn].send(reply)
            except StopIteration as end:
                results.append(end.value)
                effects[turn] = None
    assert sorted(results) == [False, True]
