"""No key can read, overwrite or delete the value of another key, whatever its characters."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from django_nats.exceptions import InvalidKey
from tests.cache.conftest import Left, MakeTwin, stream_state
from tests.conftest import MakeCache
from tests.support.foreign import key_value, keys_of

VICTIMS = ["user:1", "user:2", "user:1:name", "user", "1", "a", "a.b", "a:b"]
HOSTILE = {
    "star": "*",
    "all": ">",
    "star token": "user:*",
    "all tokens": "user:>",
    "star within": "*:*",
    "dots": "user.1",
    "dot": ".",
    "leading dot": ".a",
    "trailing dot": "a.",
    "dots as tokens": "..",
    "escaped": "=2A",
    "equals": "=",
    "the clear marker": "=clear",
    "a hash": "=h" + "0" * 64,
    "empty": "",
    "colon": ":",
    "colons": "a::b",
    "trailing colon": "a:",
    "delete": "\x7f",
    "nul": "\x00",
    "newlines": "a\r\nPUB x 0\r\n\r\n",
    "header": "a\r\nKV-Operation: PURGE\r\n",
    "space": "a b",
    "tab": "\t",
    "percent": "%2A",
    "unicode": "é€😀",
    "decomposed": "e\u0301",
    "bucket": "$KV.other.key",
    "long": "user:1:" + "x" * 3000,
    "long with stars": "*:" * 600,
    "long, another end": "user:1:" + "x" * 2999 + "y",
}


@pytest.fixture(autouse=True)
def _ignore_key_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(params=["prefixed", "bare"])
def raw(request: pytest.FixtureRequest, make_twin: MakeTwin) -> Any:
    """Make a cache with Django's key function, or with one that uses the key alone."""
    if request.param == "bare":
        return make_twin(KEY_FUNCTION=lambda key, prefix, version: key)
    return make_twin()


class TestSeparateKeys:
    @pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
    def test_a_key_reads_and_changes_only_its_own_value(self, raw: Any, hostile: str) -> None:
        others = {**dict.fromkeys(VICTIMS, "theirs"), **dict.fromkeys(HOSTILE.values(), "odd")}
        del others[hostile]
        raw.set_many(others)
        # It reads no other key …
        assert raw.get(hostile) is None
        assert raw.get_many([hostile]) == {}
        assert raw.has_key(hostile) is False
        assert raw.delete(hostile) is False
        assert raw.touch(hostile) is False
        with pytest.raises(ValueError, match="not found"):
            raw.incr(hostile)
        # … it works like any other key …
        assert raw.add(hostile, 1) is True
        assert raw.incr(hostile) == 2
        raw.set(hostile, "ours", 100)
        assert raw.get(hostile) == "ours"
        assert raw.get_many([hostile]) == {hostile: "ours"}
        assert raw.ttl(hostile) == Left(100)
        # … and it neither overwrites nor deletes another key.
        assert raw.get_many(others) == others
        assert raw.delete(hostile) is True
        raw.set(hostile, "ours", 0)
        assert raw.delete_many([hostile]) is None
        assert raw.get(hostile) is None
        assert raw.get_many(others) == others

    @pytest.mark.parametrize("delete", ["delete", "delete_many"])
    def test_a_delete_on_a_full_bucket_purges_only_its_own_key(
        self, make_twin: MakeTwin, delete: str
    ) -> None:
        limits = {"MAX_BYTES": 100_000, "MAX_VALUE_SIZE": 50_000, "EVICT": False}
        twin = make_twin(OPTIONS=limits)
        left = dict.fromkeys([*VICTIMS, *HOSTILE.values()], 1)
        assert twin.set_many(left, None) == []
        for number, key in enumerate(("*", ">", "user:*", "user:>", "=clear")):
            # Large values fill the bucket, then small ones fill the gap that is left.
            assert twin.set_many({f"{number}:{each}": "x" * 20_000 for each in range(5)}, None)
            assert twin.set_many({f"{number}-{each}": 0 for each in range(400)}, None)
            deleted = getattr(twin, delete)([key] if delete == "delete_many" else key)
            assert deleted is (None if delete == "delete_many" else True)
            del left[key]
            assert twin.get_many([*left, key]) == left

    def test_a_key_reaches_no_other_bucket(self, make_cache: MakeCache) -> None:
        one = make_cache(KEY_FUNCTION=lambda key, prefix, version: key)
        other = make_cache(OPTIONS={"BUCKET": f"{one.bucket.config.name}_other"})
        other.set("key", "theirs")
        for key in (f"$KV.{other.bucket.config.name}.=.1.key", f"../{other.bucket.config.name}"):
            one.set(key, "ours")
            assert one.get(key) == "ours"
            one.delete(key)
        assert other.get("key") == "theirs"
        assert len(stream_state(other)["subjects"]) == 1


class TestOnTheServer:
    def test_all_clients_accept_every_subject(self, server: NatsServer, cache: NatsCache) -> None:
        cache.set_many(dict.fromkeys(HOSTILE.values(), "value"))
        subjects = stream_state(cache)["subjects"]
        assert len(subjects) == len(HOSTILE)

        async def read() -> list[bytes | None]:
            async with key_value(server, cache) as bucket:
                # get() refuses keys that are not valid for nats-py.
                return [(await bucket.get(key)).value for key in await keys_of(bucket)]

        assert len(set(asyncio.run(read()))) == 1

    def test_a_clear_marker_is_not_listed_as_a_key(self, cache: NatsCache) -> None:
        cache.set("key", 1)
        cache.clear()
        assert [name.rpartition(".")[2] for name in stream_state(cache)["subjects"]] == ["=clear"]
        assert cache.keys() == []


class TestRefused:
    @pytest.mark.parametrize("key", ["\ud800", "user:\udcff:1", "\ud83d" * 2000])
    def test_a_key_with_a_lone_surrogate_raises_invalid_key(self, twin: Any, key: str) -> None:
        for operation in (
            lambda: twin.get(key),
            lambda: twin.set(key, 1),
            lambda: twin.add(key, 1),
            lambda: twin.delete(key),
            lambda: twin.get_many([key]),
            lambda: twin.incr(key),
            lambda: twin.touch(key),
        ):
            with pytest.raises(InvalidKey, match="lone surrogate"):
                operation()

    def test_an_invalid_key_among_many_does_not_affect_the_others(self, twin: Any) -> None:
        assert twin.set_many({"a": 1, "\ud800": 2}) == ["\ud800"]
        assert twin.get("a") == 1

    def test_a_key_over_eight_kibibytes_raises_invalid_key(self, twin: Any) -> None:
        twin.set("x" * 8000, 1)
        assert twin.get("x" * 8000) == 1
        for operation in (lambda: twin.set("x" * 9000, 1), lambda: twin.get("x" * 9000)):
            with pytest.raises(InvalidKey, match=r"90\d\d bytes; at most 8192 .* digest"):
                operation()
        assert twin.get("x" * 8000) == 1
