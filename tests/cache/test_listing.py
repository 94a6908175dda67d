"""Keys by pattern: which are met, what the server is asked for, and that nothing piles up."""

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
from django_nats.client import listing
from django_nats.client.steps import Request, Steps
from django_nats.devserver import NatsServer
from tests.cache.conftest import MakeTwin, advance
from tests.cache.test_timeouts import eventually
from tests.conftest import MakeCache, api
from tests.support.foreign import key_value

KEYS = ["user:1", "user:2", "user:10", "user:1:name", "users", "session:1", "flag"]


@pytest.fixture(autouse=True)
def _odd_keys() -> Iterator[None]:
    """Here keys are odd on purpose."""
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
    def test_keys(self, twin: Any, pattern: str, matching: list[str]) -> None:
        twin.set_many(dict.fromkeys(KEYS, 1))
        assert sorted(twin.keys(pattern)) == sorted(matching)
        assert sorted(twin.iter_keys(pattern)) == sorted(matching)
        assert sorted(twin.iter_keys(pattern, itersize=2)) == sorted(matching)
        assert twin.delete_pattern(pattern) == len(matching)
        assert sorted(twin.keys()) == sorted(set(KEYS) - set(matching))
        assert set(twin.get_many(KEYS)) == set(KEYS) - set(matching)

    def test_an_empty_bucket(self, twin: Any) -> None:
        assert twin.keys() == []
        assert list(twin.iter_keys()) == []
        assert twin.delete_pattern("*") == 0

    def test_versions_are_apart(self, twin: Any) -> None:
        twin.set("a", 1)
        twin.set("b", 1, version=2)
        assert (twin.keys("*"), twin.keys("*", version=2)) == (["a"], ["b"])
        assert list(twin.iter_keys("*", version=2)) == ["b"]
        assert twin.delete_pattern("*", version=2) == 1
        assert (twin.keys("*"), twin.keys("*", version=2)) == (["a"], [])

    @pytest.mark.parametrize("prefix", ["*", "?", "[ab]", "a\\", "p:q", "", "é "])
    def test_a_prefix_is_no_pattern(self, make_twin: MakeTwin, prefix: str) -> None:
        twin = make_twin(KEY_PREFIX=prefix)
        neighbours = [make_twin(KEY_PREFIX=each) for each in ("a", "b", "ab", "x")]
        for neighbour in neighbours:
            neighbour.set("theirs", 1)
        twin.set("ours", 1)
        assert twin.keys("*") == ["ours"]
        assert twin.delete_pattern("*") == 1
        assert [neighbour.keys() for neighbour in neighbours] == [["theirs"]] * 4

    def test_a_key_function_that_appends(self, make_twin: MakeTwin) -> None:
        twin = make_twin(KEY_FUNCTION=lambda key, prefix, version: f"{key}@{version}*")
        twin.set("a", 1)
        twin.set("b", 1, version=2)
        assert twin.keys("*") == ["a"]

    def test_a_key_function_that_hides_the_key(self, make_twin: MakeTwin) -> None:
        def digest(key: str, prefix: str, version: int) -> str:
            return hashlib.sha256(f"{prefix}{version}{key}".encode()).hexdigest()

        twin = make_twin(KEY_FUNCTION=digest)
        twin.set("a", 1)
        for list_keys in (twin.keys, lambda each: list(twin.iter_keys(each)), twin.delete_pattern):
            with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
                list_keys("*")


class TestWhichKeys:
    def test_odd_and_long_ones(self, twin: Any) -> None:
        odd = ["", " ", ":", "a::b", "a.b", "*", ">", "a=b", "=clear", "\x7f", "\n", "é€😀", "%41"]
        long = [f"long:{'x' * length}{end}" for length in (1100, 3000) for end in ("", "é ", "%20")]
        twin.set_many(dict.fromkeys(odd + long, 1))
        assert sorted(twin.keys()) == sorted(odd + long)
        assert sorted(twin.keys("long:*")) == sorted(long)
        assert sorted(twin.keys("long:*%20")) == sorted(key for key in long if "%20" in key)
        assert twin.delete_pattern("long:*") == len(long)
        assert sorted(twin.keys()) == sorted(odd)

    def test_neither_deleted_nor_cleared_nor_expired_ones(self, twin: Any) -> None:
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

    def test_those_of_other_clients_are_met_or_passed_over(
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

    def test_a_key_written_anew_meanwhile_is_not_deleted(
        self, cache: NatsCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.set("key", "old")
        cache.set("other", 1)
        delete_many = cache._bucket.delete_many

        def later(keys: Any, revisions: Any) -> Steps[Any]:
            yield from cache._set("key", "new")
            return (yield from delete_many(keys, revisions))

        monkeypatch.setattr(cache._bucket, "delete_many", later)
        assert cache.delete_pattern("*") == 1
        assert (cache.get("key"), cache.get("other")) == ("new", None)


class TestWhatTheServerIsAskedFor:
    def consumers(self, cache: NatsCache) -> list[dict[str, Any]]:
        stream = cache._bucket.config.stream
        return list(api(cache, f"CONSUMER.LIST.{stream}", {"offset": 0})["consumers"] or [])

    @pytest.mark.parametrize(
        ("pattern", "pending"), [("user:*", 10), ("user:1:*", 5), ("*", 1010), ("user:1?*", 10)]
    )
    def test_it_narrows_to_the_patterns_leading_parts(
        self, cache: NatsCache, pattern: str, pending: int
    ) -> None:
        users = {f"user:{one}:{two}": 1 for one in range(1, 3) for two in range(5)}
        cache.set_many({**users, **{f"other:{number}": 1 for number in range(1000)}})
        keys = cache.iter_keys(pattern, itersize=1)
        next(keys)
        (asked,) = self.consumers(cache)
        assert asked["config"]["headers_only"] is True
        assert asked["num_pending"] + asked["delivered"]["consumer_seq"] == pending
        assert asked["delivered"]["consumer_seq"] == 1
        keys.close()

    def test_a_finished_iteration_leaves_no_consumer(self, twin: Any) -> None:
        twin.set_many(dict.fromkeys(KEYS, 1))
        assert len(list(twin.iter_keys())) == len(KEYS)
        assert list(twin.iter_keys("nothing:*")) == []
        eventually(lambda: self.consumers(twin.plain) == [])

    def test_one_given_up_leaves_none_either(self, cache: NatsCache) -> None:
        cache.set_many(dict.fromkeys(KEYS, 1))
        keys = cache.iter_keys(itersize=1)
        next(keys)
        (running,) = self.consumers(cache)
        # For a process that dies meanwhile.
        assert 0 < running["config"]["inactive_threshold"] <= 600_000_000_000
        keys.close()
        eventually(lambda: self.consumers(cache) == [])

    def test_values_are_not_sent(self, cache: NatsCache, monkeypatch: pytest.MonkeyPatch) -> None:
        cache.set_many(dict.fromkeys(KEYS, "x" * 10_000))
        sizes = []
        listed = listing._listed

        def measuring(bucket: Any, met: Any) -> Any:
            sizes.append(len(met.reply.payload))
            return listed(bucket, met)

        monkeypatch.setattr(listing, "_listed", measuring)
        cache.keys()
        assert sizes == [0] * len(KEYS)


class TestManyKeys:
    count = 20_000

    @pytest.fixture
    def full(self, cache: NatsCache) -> NatsCache:
        assert cache.set_many({f"key:{number}": 1 for number in range(self.count)}, 1000) == []
        return cache

    def test_every_key_once_in_flat_memory_and_the_first_before_the_rest(
        self, full: NatsCache
    ) -> None:
        list(full.iter_keys("key:1"))  # what is imported and cached on first use is not memory held
        requests: list[Request] = []
        submit = full.session.submit

        def counting(waiter: Any) -> None:
            requests.extend(waiter.requests)
            submit(waiter)

        full.session.submit = counting  # type: ignore[method-assign]
        try:
            keys = full.iter_keys()
            tracemalloc.start()
            first = next(keys)
            assert len(requests) == 2  # the consumer, and the first batch
            assert requests[1].gather <= 100
            seen = sum(1 for _ in keys) + 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            del full.session.submit
        assert first.startswith("key:")
        assert seen == self.count
        # A batch of a thousand replies takes well under 2 MB; all twenty thousand take 20.
        assert peak < 4_000_000

    def test_each_once(self, full: NatsCache) -> None:
        assert sorted(full.iter_keys()) == sorted(f"key:{number}" for number in range(self.count))

    def test_writes_go_on_while_an_iteration_is_open(self, full: NatsCache) -> None:
        keys = full.iter_keys("key:*")
        seen = {next(keys)}
        full.set("key:new", 1)
        assert full.delete("key:19999") is True
        seen.update(keys)
        assert seen >= {f"key:{number}" for number in range(self.count - 1)}

    def test_delete_pattern_goes_through_all_of_them(self, full: NatsCache) -> None:
        full.set("other", 1)
        assert full.delete_pattern("key:*") == self.count
        assert full.keys() == ["other"]


async def test_an_async_iteration_that_is_given_up(make_cache: MakeCache) -> None:
    cache = make_cache()
    await cache.aset_many(dict.fromkeys(KEYS, 1))
    keys = cache.aiter_keys(itersize=2)
    assert await anext_of(keys) in KEYS
    await keys.aclose()
    assert await cache.aget("flag") == 1
    while cache.session.waiters:  # for the consumer's deletion, whose answer nobody waits for
        await cache.aget("flag")


async def anext_of(iterator: Any) -> Any:
    return await iterator.__anext__()
