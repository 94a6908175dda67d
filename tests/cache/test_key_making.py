"""What a key is made of: version, prefix, key function; and whom a bucket is shared with."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache, CacheKeyWarning, default_key_func
from hypothesis import given, settings
from hypothesis import strategies as st

from django_nats.cache import NatsCache
from tests.cache.conftest import Left, MakeTwin
from tests.conftest import MakeCache


class TestVersions:
    def test_versions_are_separate(self, twin: Any) -> None:
        twin.set("key", 1)
        twin.set("key", 2, version=2)
        assert (twin.get("key"), twin.get("key", version=2)) == (1, 2)
        assert twin.delete("key", version=2) is True
        assert (twin.get("key"), twin.get("key", version=2)) == (1, None)

    def test_the_version_of_the_settings_is_the_default(self, make_twin: MakeTwin) -> None:
        make_twin(VERSION=7).set("key", 1)
        assert make_twin().get("key") is None
        assert make_twin().get("key", version=7) == 1

    def test_incr_version_moves_a_value_with_its_timeout(self, twin: Any) -> None:
        twin.set("key", "value", 100)
        assert twin.incr_version("key") == 2
        assert twin.get("key") is None
        assert twin.get("key", version=2) == "value"
        assert twin.ttl("key", version=2) == Left(100)
        assert twin.decr_version("key", version=2) == 1
        assert twin.get("key") == "value"
        assert twin.ttl("key") == Left(100)
        twin.set("key", "value", None)
        assert twin.incr_version("key", 5) == 6
        assert twin.ttl("key", version=6) is None

    @pytest.mark.parametrize("name", ["incr_version", "decr_version"])
    def test_moving_a_missing_key_raises_value_error(self, twin: Any, name: str) -> None:
        with pytest.raises(ValueError, match="'key' not found"):
            getattr(twin, name)("key")

    def test_incr_version_signs_a_value_for_its_new_key(self, make_twin: MakeTwin) -> None:
        signed = "django_nats.serializers.SignedPickleSerializer"
        twin = make_twin(OPTIONS={"SERIALIZER": signed})
        twin.set("key", "value")
        twin.incr_version("key")
        assert twin.get("key", version=2) == "value"


def uppercase_key(key: str, prefix: str, version: int) -> str:
    return f"{prefix}!{version}!{key.upper()}"


class Tenant:
    """A KEY_PREFIX whose text changes."""

    current = ""

    def __str__(self) -> str:
        return self.current


class TestKeys:
    def test_key_prefixes_are_separate(self, make_twin: MakeTwin) -> None:
        one, other = make_twin(KEY_PREFIX="one"), make_twin(KEY_PREFIX="other")
        one.set("key", 1)
        assert other.get("key") is None
        other.set_many({"key": 2})
        assert (one.get("key"), other.get("key")) == (1, 2)

    @pytest.mark.parametrize("function", [uppercase_key, f"{__name__}.uppercase_key"])
    def test_a_key_function_is_used(self, make_twin: MakeTwin, function: Any) -> None:
        twin = make_twin(KEY_FUNCTION=function, KEY_PREFIX="p")
        twin.set("key", 1)
        assert twin.get("KEY") == 1
        assert twin.get_many(["key"]) == {"key": 1}
        assert make_twin(KEY_FUNCTION=lambda key, prefix, version: key).get("p!1!KEY") == 1

    def test_a_subclass_can_override_make_key_and_validate_key(self) -> None:
        validated = []

        class Shouting(NatsCache):
            def make_key(self, key: str, version: int | None = None) -> str:
                return f"!{key.upper()}"

        class Strict(NatsCache):
            def validate_key(self, key: str) -> None:
                validated.append(key)

        unreachable: tuple[str, dict[str, Any]] = ("nats://127.0.0.1:1", {})
        assert Shouting(*unreachable).make_and_validate_key("key") == "!KEY"
        assert Strict(*unreachable).make_and_validate_key("key") == ":1:key"
        assert validated == [":1:key"]

    def test_a_changed_attribute_of_a_cache_takes_effect(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        validated: list[str] = []
        cache = NatsCache("nats://127.0.0.1:1", {})
        assert cache.make_and_validate_key("key") == ":1:key"
        cache.version = 2
        assert cache.make_and_validate_key("key") == ":2:key"
        cache.key_prefix = "site"
        assert cache.make_and_validate_key("key") == "site:2:key"
        cache.key_prefix = Tenant()  # type: ignore[assignment]
        for name in ("one", "other"):
            Tenant.current = name
            assert cache.make_and_validate_key("key") == f"{name}:2:key"
        cache.key_prefix = ""
        cache.key_func = uppercase_key
        assert cache.make_and_validate_key("key") == "!2!KEY"
        cache.key_func = default_key_func
        assert cache.make_and_validate_key("key") == ":2:key"
        monkeypatch.setattr(cache, "validate_key", validated.append)
        assert cache.make_and_validate_key("key") == ":2:key"
        assert validated == [":2:key"]
        monkeypatch.undo()
        monkeypatch.setattr(cache, "make_key", lambda key, version=None: f"own {key}")
        with pytest.warns(CacheKeyWarning):
            assert cache.make_and_validate_key("key") == "own key"
        monkeypatch.undo()
        monkeypatch.setattr(BaseCache, "make_key", lambda self, key, version=None: f"own:{key}")
        assert NatsCache("nats://127.0.0.1:1", {}).make_and_validate_key("key") == "own:key"

    @pytest.mark.parametrize("key", ["with space", "tab\t", "é" * 251, "line\nbreak"])
    def test_a_key_that_memcached_would_refuse_works_with_a_warning(
        self, twin: Any, key: str
    ) -> None:
        operations = {
            "set": (key, 1),
            "get": (key,),
            "add": (key, 1),
            "touch": (key,),
            "incr": (key,),
            "has_key": (key,),
            "get_many": ([key],),
            "set_many": ({key: 1},),
            "get_or_set": (key, 1),
            "incr_version": (key,),
            "delete": (key,),
            "delete_many": ([key],),
        }
        for name, arguments in operations.items():
            with pytest.warns(CacheKeyWarning):
                getattr(twin, name)(*arguments)
        with pytest.warns(CacheKeyWarning):
            twin.set(key, "value")
        with pytest.warns(CacheKeyWarning):
            assert twin.get(key) == "value"


class Suffixed(str):
    """A string that equals its text and is formatted with a suffix."""

    __slots__ = ("end",)

    def __new__(cls, text: str, end: str) -> Suffixed:
        self = super().__new__(cls, text)
        self.end = end
        return self

    def __str__(self) -> str:
        return super().__str__() + self.end


odd_keys = st.sampled_from(
    ["", "a b", "a\nb", "\n", "é", "x" * 247, "x" * 248, 1, None, Suffixed("key", "!")]
)


class TestKeysOfABatch:
    """The keys of a batch are made together where that is possible."""

    @given(
        st.lists(st.text(alphabet="ab:.-/é ", max_size=4) | odd_keys, max_size=5),
        st.sampled_from(["", "site", "with space", Suffixed("site", "!"), 3]),
        st.sampled_from([None, 1, 7, "two", True]),
    )
    @settings(deadline=None)
    def test_they_are_those_that_would_be_made_singly(
        self, keys: list[Any], prefix: Any, version: Any
    ) -> None:
        cache = NatsCache("nats://127.0.0.1:1", {})
        cache.key_prefix = prefix
        with warnings.catch_warnings(record=True) as of_all:
            warnings.simplefilter("always")
            together = cache._made_keys(keys, version)
        with warnings.catch_warnings(record=True) as of_each:
            warnings.simplefilter("always")
            singly = {cache.make_and_validate_key(each, version): each for each in keys}
        assert together == singly
        assert list(map(str, together)) == list(map(str, singly))
        assert [str(each.message) for each in of_all] == [str(each.message) for each in of_each]

    def test_they_are_made_by_the_functions_of_the_cache(self) -> None:
        cache = NatsCache("nats://127.0.0.1:1", {"KEY_FUNCTION": uppercase_key})
        assert cache._made_keys(iter(["a", "b"]), 2) == {"!2!A": "a", "!2!B": "b"}


class TestRememberedKeys:
    """With a near cache, made keys are remembered; equal objects may format differently."""

    @pytest.mark.parametrize(
        "alike",
        [
            [(1,), (True,), (1.0,)],
            [Decimal("1.0"), Decimal("1.00"), 1],
            [0.0, -0.0, 0, False],
            [Suffixed("key", "!"), Suffixed("key", "?"), "key"],
        ],
        ids=repr,
    )
    def test_equal_objects_with_different_texts_make_different_keys(
        self, make_cache: MakeCache, alike: list[Any]
    ) -> None:
        cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
        for each in (*alike, *reversed(alike)):
            assert cache.make_and_validate_key(each) == f":1:{each}"
            assert cache.make_and_validate_key("key", version=each) == f":{each}:key"


class TestAliases:
    def test_two_buckets_are_separate(self, make_twin: MakeTwin) -> None:
        bucket = make_twin().plain.bucket.config.name
        one, other = make_twin(), make_twin(OPTIONS={"BUCKET": f"{bucket}_other"})
        one.set("key", 1)
        other.set("key", 2)
        other.clear()
        assert (one.get("key"), other.get("key")) == (1, None)

    def test_aliases_of_one_bucket_share_values_and_clear_each_other(
        self, make_twin: MakeTwin
    ) -> None:
        one, other = make_twin(TIMEOUT=10), make_twin(TIMEOUT=20)
        one.set("key", 1)
        assert other.get("key") == 1
        assert other.incr("key") == 2
        assert one.get("key") == 2
        assert other.delete("key") is True
        assert one.has_key("key") is False
        neighbour = make_twin(KEY_PREFIX="neighbour")
        neighbour.set("key", 1)
        one.clear()
        assert neighbour.get("key") is None
