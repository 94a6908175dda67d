"""Listing keys by pattern: the keys found, the consumers used, and the memory needed."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.client.kv import listing
from django_nats.client.protocol.steps import Steps
from django_nats.devserver import NatsServer
from tests.cache.conftest import MakeTwin, advance
from tests.cache.test_listing_ends import consumers, send
from tests.conftest import MakeCache
from tests.servers import eventually
from tests.support.foreign import key_value

KEYS = ["user:1", "user:2", "user:10", "user:1:name", "users", "session:1", "flag"]


@pytest.fixture(autouse=True)
def _ignore_key_warnings() -> Iterator[None]:
    """Silence warnings: these tests use odd keys on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "matching"),
        [
            ("*", KEYS),
            ("user:*", ["user:1", "user:2", "user:10", "user:1:name"]),
            ("user*", ["user:1", "user:2", "user:10", "user:1:name", "users"]),
            ("user:?", ["user:1", "user:2"]),
            ("user:[12]", ["user:1", "user:2"]),
            ("user:[^1]", ["user:2"]),
            ("*:1", ["user:1", "session:1"]),
            ("*name", ["user:1:name"]),
            ("flag", ["flag"]),
            ("fla", []),
            ("", []),
        ],
    )
    def test_listing_and_deleting_by_pattern_find_the_matching_keys(
        self, twin: Any, pattern: str, matching: list[str]
    ) -> None:
        twin.set_many(dict.fromkeys(KEYS, 1))
        assert sorted(twin.keys(pattern)) == sorted(matching)
        assert sorted(twin.iter_keys(pattern)) == sorted(matching)
        assert sorted(twin.iter_keys(pattern, itersize=2)) == sorted(matching)
        assert twin.delete_pattern(pattern) == len(matching)
        assert sorted(twin.keys()) == sorted(set(KEYS) - set(matching))
        assert set(twin.get_many(KEYS)) == set(KEYS) - set(matching)

    def test_an_empty_bucket_lists_no_keys(self, twin: Any) -> None:
        assert twin.keys() == []
        assert list(twin.iter_keys()) == []
        assert twin.delete_pattern("*") == 0

    def test_keys_of_other_versions_are_not_listed(self, twin: Any) -> None:
        twin.set("a", 1)
        twin.set("b", 1, version=2)
        assert (twin.keys("*"), twin.keys("*", version=2)) == (["a"], ["b"])
        assert list(twin.iter_keys("*", version=2)) == ["b"]
        assert twin.delete_pattern("*", version=2) == 1
        assert (twin.keys("*"), twin.keys("*", version=2)) == (["a"], [])

    @pytest.mark.parametrize("prefix", ["*", "?", "[ab]", "a\\", "p:q", "", "é "])
    def test_wildcards_in_a_prefix_are_literal(self, make_twin: MakeTwin, prefix: str) -> None:
        twin = make_twin(KEY_PREFIX=prefix)
        neighbours = [make_twin(KEY_PREFIX=each) for each in ("a", "b", "ab", "x")]
        for neighbour in neighbours:
            neighbour.set("theirs", 1)
        twin.set("ours", 1)
        assert twin.keys("*") == ["ours"]
        assert twin.delete_pattern("*") == 1
        assert [neighbour.keys() for neighbour in neighbours] == [["theirs"]] * 4

    def test_keys_are_listed_with_a_key_function_that_appends(self, make_twin: MakeTwin) -> None:
        twin = make_twin(KEY_FUNCTION=lambda key, prefix, version: f"{key}@{version}*")
        twin.set("a", 1)
        twin.set("b", 1, version=2)
        assert twin.keys("*") == ["a"]

    def test_listing_raises_if_the_key_function_hides_the_key(self, make_twin: MakeTwin) -> None:
        def digest(key: str, prefix: str, version: int) -> str:
            return hashlib.sha256(f"{prefix}{version}{key}".encode()).hexdigest()

        twin = make_twin(KEY_FUNCTION=digest)
        twin.set("a", 1)
        for list_keys in (twin.keys, lambda each: list(twin.iter_keys(each)), twin.delete_pattern):
            with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
                list_keys("*")


class TestWhichKeys:
    def test_odd_and_long_keys_are_listed(self, twin: Any) -> None:
        odd = ["", " ", ":", "a::b", "a.b", "*", ">", "a=b", "=clear", "\x7f", "\n", "é€😀", "%41"]
        long = [f"long:{'x' * length}{end}" for length in (1100, 3000) for end in ("", "é ", "%20")]
        twin.set_many(dict.fromkeys(odd + long, 1))
        assert sorted(twin.keys()) == sorted(odd + long)
        assert sorted(twin.keys("long:*")) == sorted(long)
        assert sorted(twin.keys("long:*%20")) == sorted(key for key in long if "%20" in key)
        assert twin.delete_pattern("long:*") == len(long)
        assert sorted(twin.keys()) == sorted(odd)

    def test_deleted_cleared_and_expired_keys_are_not_listed(self, twin: Any) -> None:
        twin.set("cleared", 1)
        twin.clear()
        twin.set_many({"stays": 1, "deleted": 1, "deleted-too": 1}, 1000)
        twin.set("expired", 1, 60)
        twin.delete("deleted")
        twin.delete_many(["deleted-too"])
        advance(twin, 61)
        assert twin.keys() == ["stays"]
        assert list(twin.iter_keys()) == ["stays"]
        assert twin.delete_pattern("*") == 1

    def test_keys_of_other_clients_are_listed_if_they_are_made_keys(
        self, server: NatsServer, make_twin: MakeTwin
    ) -> None:
        twin = make_twin()

        async def write() -> None:
            async with key_value(server, twin.plain) as bucket:
                for key in (
                    "=.1.theirs",
                    "no-django-key",
                    "=zz",
                    "a=b",
                    "=.1.=C3",
                    "x=h" + "0" * 64,
                ):
                    await bucket.put(key, b"value")
                await bucket.put("=.1.gone", b"value")
                await bucket.delete("=.1.gone")

        asyncio.run(write())
        twin.set("ours", 1)
        assert sorted(twin.keys()) == ["ours", "theirs"]
        assert twin.delete_pattern("*") == 2

    def test_delete_pattern_keeps_a_key_that_is_written_again_meanwhile(
        self, cache: NatsCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.set("key", "old")
        cache.set("other", 1)
        delete_many = cache.bucket.delete_many

        def later(keys: Any, revisions: Any) -> Steps[Any]:
            yield from cache._set("key", "new")
            return (yield from delete_many(keys, revisions))

        monkeypatch.setattr(cache.bucket, "delete_many", later)
        assert cache.delete_pattern("*") == 1
        assert (cache.get("key"), cache.get("other")) == ("new", None)


class TestConsumers:
    @pytest.mark.parametrize(
        ("pattern", "pending"), [("user:*", 10), ("user:1:*", 5), ("*", 1010), ("user:1?*", 10)]
    )
    def test_the_consumer_filters_by_the_leading_parts_of_the_pattern(
        self, cache: NatsCache, pattern: str, pending: int
    ) -> None:
        users = {f"user:{one}:{two}": 1 for one in range(1, 3) for two in range(5)}
        cache.set_many({**users, **{f"other:{number}": 1 for number in range(1000)}})
        keys = cache.iter_keys(pattern, itersize=1)
        next(keys)
        (asked,) = consumers(cache)
        assert asked["config"]["headers_only"] is True
        assert asked["num_pending"] + asked["delivered"]["consumer_seq"] == pending
        assert asked["delivered"]["consumer_seq"] == 1
        keys.close()

    def test_a_finished_iteration_leaves_no_consumer(self, twin: Any) -> None:
        twin.set_many(dict.fromkeys(KEYS, 1))
        assert len(list(twin.iter_keys())) == len(KEYS)
        assert list(twin.iter_keys("nothing:*")) == []
        assert eventually(lambda: consumers(twin.plain) == [])

    def test_a_closed_iteration_leaves_no_consumer(self, cache: NatsCache) -> None:
        cache.set_many(dict.fromkeys(KEYS, 1))
        keys = cache.iter_keys(itersize=1)
        next(keys)
        (running,) = consumers(cache)
        # The server deletes the consumer if the process dies meanwhile.
        assert 0 < running["config"]["inactive_threshold"] <= 60_000_000_000
        keys.close()
        assert eventually(lambda: consumers(cache) == [])

    def test_values_are_not_sent(self, cache: NatsCache) -> None:
        cache.set_many(dict.fromkeys(KEYS, "x" * 10_000))
        steps = listing.iter_keys(cache.bucket, "*")
        request = steps.send(drivers.run(cache.session, send(next(steps))))
        request.reader = None
        replies = drivers.run(cache.session, send(request))
        steps.close()
        assert len(replies) == len(KEYS) + 1  # and the status
        assert {len(reply.payload) for reply in replies} == {0}


class TestManyKeys:
    count = 20_000

    @pytest.fixture
    def cache_with_many_keys(self, cache: NatsCache) -> NatsCache:
        assert cache.set_many({f"key:{number}": 1 for number in range(self.count)}, 1000) == []
        return cache

    @pytest.mark.usefixtures("without_doubts")  # the requests are counted
    def test_iterating_reads_batch_by_batch_in_constant_memory(
        self, cache_with_many_keys: NatsCache
    ) -> None:
        list(
            cache_with_many_keys.iter_keys("key:1")
        )  # memory of first use (imports, caches) is not measured
        most_replies: list[int] = []  # not the requests, whose readers hold what they have read
        submit = cache_with_many_keys.session.submit

        def counting(waiter: Any) -> None:
            most_replies.extend([request.gather for request in waiter.requests])
            submit(waiter)

        cache_with_many_keys.session.submit = counting  # type: ignore[method-assign]
        try:
            keys = cache_with_many_keys.iter_keys()
            tracemalloc.start()
            first = next(keys)
            assert len(most_replies) == 2  # the consumer, and the first batch
            assert most_replies[1] <= 100
            seen = sum(1 for _ in keys) + 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            del cache_with_many_keys.session.submit
        assert first.startswith("key:")
        assert seen == self.count
        # A batch of four thousand keys takes about 1 MB; all twenty thousand take more than 3.
        assert peak < 2_500_000

    def test_every_key_is_listed_once(self, cache_with_many_keys: NatsCache) -> None:
        assert sorted(cache_with_many_keys.iter_keys()) == sorted(
            f"key:{number}" for number in range(self.count)
        )

    def test_writes_succeed_while_an_iteration_is_open(
        self, cache_with_many_keys: NatsCache
    ) -> None:
        keys = cache_with_many_keys.iter_keys("key:*")
        seen = {next(keys)}
        cache_with_many_keys.set("key:new", 1)
        assert cache_with_many_keys.delete("key:19999") is True
        seen.update(keys)
        assert seen >= {f"key:{number}" for number in range(self.count - 1)}

    def test_delete_pattern_deletes_all_matching_keys(
        self, cache_with_many_keys: NatsCache
    ) -> None:
        cache_with_many_keys.set("other", 1)
        assert cache_with_many_keys.delete_pattern("key:*") == self.count
        assert cache_with_many_keys.keys() == ["other"]


async def test_the_cache_works_after_an_async_iteration_is_closed(make_cache: MakeCache) -> None:
    cache = make_cache()
    await cache.aset_many(dict.fromkeys(KEYS, 1))
    keys = cache.aiter_keys(itersize=2)
    assert await anext_of(keys) in KEYS
    await keys.aclose()
    assert await cache.aget("flag") == 1
    while cache.session.waiters:  # the consumer's deletion, which no caller waits for
        await cache.aget("flag")


async def anext_of(iterator: Any) -> Any:
    return await iterator.__anext__()
