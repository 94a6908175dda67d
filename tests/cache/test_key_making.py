"""What a key is made of: version, prefix, key function; and whom a bucket is shared with."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache, CacheKeyWarning, default_key_func

from django_nats.cache import NatsCache
from tests.cache.conftest import Left, MakeTwin
from tests.conftest import MakeCache


class TestVersions:
    def test_versions_are_apart(self, twin: Any) -> None:
        twin.set("key", 1)
        twin.set("key", 2, version=2)
        assert (twin.get("key"), twin.get("key", version=2)) == (1, 2)
        assert twin.delete("key", version=2) is True
        assert (twin.get("key"), twin.get("key", version=2)) == (1, None)

    def test_the_version_of_settings(self, make_twin: MakeTwin) -> None:
        make_twin(VERSION=7).set("key", 1)
        assert make_twin().get("key") is None
        assert make_twin().get("key", version=7) == 1

    def test_a_value_moves_with_its_timeout(self, twin: Any) -> None:
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
    def test_a_missing_key_cannot_move(self, twin: Any, name: str) -> None:
        with pytest.raises(ValueError, match="'key' not found"):
            getattr(twin, name)("key")

    def test_a_signed_value_is_signed_for_its_new_key(self, make_twin: MakeTwin) -> None:
        signed = "django_nats.serializers.SignedPickleSerializer"
        twin = make_twin(OPTIONS={"SERIALIZER": signed})
        twin.set("key", "value")
        twin.incr_version("key")
        assert twin.get("key", version=2) == "value"


def shout(key: str, prefix: str, version: int) -> str:
    return f"{prefix}!{version}!{key.upper()}"


class Tenant:
    """A KEY_PREFIX that is not always the same."""

    current = ""

    def __str__(self) -> str:
        return self.current


class TestKeys:
    def test_key_prefixes_are_apart(self, make_twin: MakeTwin) -> None:
        one, other = make_twin(KEY_PREFIX="one"), make_twin(KEY_PREFIX="other")
        one.set("key", 1)
        assert other.get("key") is None
        other.set_many({"key": 2})
        assert (one.get("key"), other.get("key")) == (1, 2)

    @pytest.mark.parametrize("function", [shout, f"{__name__}.shout"])
    def test_a_key_function(self, make_twin: MakeTwin, function: Any) -> None:
        twin = make_twin(KEY_FUNCTION=function, KEY_PREFIX="p")
        twin.set("key", 1)
        assert twin.get("KEY") == 1
        assert twin.get_many(["key"]) == {"key": 1}
        assert make_twin(KEY_FUNCTION=lambda key, prefix, version: key).get("p!1!KEY") == 1

    def test_a_subclass_makes_and_validates_keys_itself(self) -> None:
        validated = []

        class Shouting(NatsCache):
            def make_key(self, key: str, version: int | None = None) -> str:
                return f"!{key.upper()}"

        class Strict(NatsCache):
            def validate_key(self, key: str) -> None:
                validated.append(key)

        nowhere: tuple[str, dict[str, Any]] = ("nats://127.0.0.1:1", {})
        assert Shouting(*nowhere).make_and_validate_key("key") == "!KEY"
        assert Strict(*nowhere).make_and_validate_key("key") == ":1:key"
        assert validated == [":1:key"]

    def test_what_is_changed_on_a_cache_counts_from_then_on(
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
        cache.key_func = shout
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
    def test_a_key_that_memcached_would_refuse_warns_and_works(self, twin: Any, key: str) -> None:
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


class Loud(str):
    """Equal to what it is made of, and written otherwise."""

    __slots__ = ("end",)

    def __new__(cls, text: str, end: str) -> Loud:
        self = super().__new__(cls, text)
        self.end = end
        return self

    def __str__(self) -> str:
        return super().__str__() + self.end


class TestRememberedKeys:
    """With a near cache, made keys are remembered; what is equal need not be written alike."""

    @pytest.mark.parametrize(
        "alike",
        [
            [(1,), (True,), (1.0,)],
            [Decimal("1.0"), Decimal("1.00"), 1],
            [0.0, -0.0, 0, False],
            [Loud("key", "!"), Loud("key", "?"), "key"],
        ],
        ids=repr,
    )
    def test_equals_are_apart(self, make_cache: MakeCache, alike: list[Any]) -> None:
        cache = make_cache(OPTIONS={"NEAR_CACHE": {}})
        for each in (*alike, *reversed(alike)):
            assert cache.make_and_validate_key(each) == f":1:{each}"
            assert cache.make_and_validate_key("key", version=each) == f":{each}:key"


class TestAliases:
    def test_two_buckets_are_apart(self, make_twin: MakeTwin) -> None:
        bucket = make_twin().plain._bucket.config.name
        one, other = make_twin(), make_twin(OPTIONS={"BUCKET": f"{bucket}_other"})
        one.set("key", 1)
        other.set("key", 2)
        other.clear()
        assert (one.get("key"), other.get("key")) == (1, None)

    def test_one_bucket_is_shared_and_cleared_together(self, make_twin: MakeTwin) -> None:
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
