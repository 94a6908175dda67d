"""get_or_set(), and the values that it and update() return."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cache.conftest import Awaited, Left, MakeTwin
from tests.support.ports import free_port

pytestmark = pytest.mark.smoke

JSON = "django_nats.serializers.JSONSerializer"
UNREACHABLE_URL = f"nats://127.0.0.1:{free_port()}"


class TestReturnedValues:
    @pytest.mark.parametrize(
        "store",
        [
            lambda cache, value: cache.get_or_set("key", value),
            lambda cache, value: cache.get_or_set("key", lambda: value),
            lambda cache, value: cache.update("key", lambda _: value),
        ],
        ids=["get_or_set", "get_or_set a function", "update"],
    )
    @pytest.mark.parametrize("serializer", ["Pickle", "JSON", "SignedPickle", "MsgPack"])
    @pytest.mark.parametrize("compressor", [None, "django_nats.compressors.ZlibCompressor"])
    def test_the_returned_value_has_the_types_of_a_read_and_is_a_copy(
        self, make_twin: MakeTwin, store: Any, serializer: str, compressor: str | None
    ) -> None:
        options = {"SERIALIZER": f"django_nats.serializers.{serializer}Serializer"}
        twin = make_twin(OPTIONS=options | ({"COMPRESSOR": compressor} if compressor else {}))
        value = {"pair": (1, 2), "text": "x" * 3000, "rows": [{"a": 1}]}
        returned = store(twin, value)
        found = twin.get("key")
        assert returned == found
        assert type(returned["pair"]) is type(found["pair"])
        returned["rows"].append(2)
        assert len(value["rows"]) == 1
        assert twin.get("key") == found

    @pytest.mark.parametrize("near", [{}, {"NEAR_CACHE": {}}], ids=["plain", "near"])
    def test_every_caller_of_get_or_set_gets_the_same_value(
        self, make_twin: MakeTwin, near: dict[str, Any]
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": JSON, **near})
        callers = [twin.get_or_set("key", {1: (2,)}) for _ in range(3)]
        assert callers == [{"1": [2]}] * 3

    def test_the_stored_value_is_returned_instead_of_a_late_default(
        self, make_twin: MakeTwin
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": JSON})

        def slow() -> tuple[int, ...]:
            twin.plain.set("key", (1, 2))
            return (3,)

        assert twin.get_or_set("key", slow) == [1, 2]

    @pytest.mark.parametrize("method", ["get_or_set", "update"])
    def test_the_value_is_converted_while_the_server_is_unreachable(
        self, make_twin: MakeTwin, method: str
    ) -> None:
        twin = make_twin(location=UNREACHABLE_URL, OPTIONS={"SERIALIZER": JSON, "FAIL_OPEN": True})
        value = {1: (2,)}
        assert getattr(twin, method)("key", lambda *_: value) == {"1": [2]}

    def test_the_value_is_converted_on_a_full_bucket(self, make_twin: MakeTwin) -> None:
        options = {"SERIALIZER": JSON, "FAIL_OPEN": True, "EVICT": False, "MAX_ENTRIES": 1}
        twin = make_twin(OPTIONS=options)
        twin.set("other", 1)
        assert twin.get_or_set("key", (1,)) == [1]
        assert twin.update("key", lambda _: (1,)) == [1]

    def test_the_given_value_is_returned_if_the_serializer_cannot_read_it_back(
        self, make_twin: MakeTwin
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": WriteOnly()})
        assert twin.get_or_set("key", (1,)) == (1,)


class WriteOnly:
    name = "write-only"

    def dumps(self, value: object, *, key: str, bucket: str) -> bytes:
        return repr(value).encode()

    def loads(self, data: bytes, *, key: str, bucket: str) -> object:
        raise ValueError


class TestGetOrSet:
    def test_the_default_is_stored_and_returned(self, twin: Any) -> None:
        assert twin.get_or_set("key", "default", 60) == "default"
        assert twin.get("key") == "default"
        assert twin.ttl("key") == Left(60)

    def test_an_existing_value_is_returned_without_calling_the_default(self, twin: Any) -> None:
        twin.set("key", 0)
        assert twin.get_or_set("key", pytest.fail) == 0

    def test_a_callable_default_is_called_once(self, twin: Any) -> None:
        calls: list[int] = []
        assert twin.get_or_set("key", lambda: calls.append(1) or "made") == "made"
        assert twin.get_or_set("key", lambda: calls.append(2) or "again") == "made"
        assert calls == [1]

    def test_none_is_stored_like_any_value(self, twin: Any) -> None:
        assert twin.get_or_set("key", lambda: None) is None
        assert twin.get("key", "default") is None

    def test_a_value_set_meanwhile_wins(self, twin: Any) -> None:
        def slow() -> str:
            twin.plain.set("key", "theirs")
            return "ours"

        assert twin.get_or_set("key", slow) == "theirs"
        assert twin.get("key") == "theirs"

    def test_an_unreadable_value_is_replaced(self, make_twin: MakeTwin) -> None:
        make_twin().set("key", {"pickled": 1})
        twin = make_twin(OPTIONS={"SERIALIZER": "django_nats.serializers.JSONSerializer"})
        assert twin.get_or_set("key", "ours") == "ours"
        assert twin.get("key") == "ours"

    def test_an_error_of_the_function_is_raised_and_nothing_is_stored(self, twin: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            twin.get_or_set("key", lambda: 1 / 0)
        assert twin.has_key("key") is False

    def test_a_value_with_timeout_zero_is_returned_and_not_stored(self, twin: Any) -> None:
        assert twin.get_or_set("key", 1, 0) == 1
        assert twin.has_key("key") is False

    def test_only_the_async_method_accepts_a_coroutine_function(self, twin: Any) -> None:
        async def made() -> str:
            await asyncio.sleep(0)
            return "made"

        if isinstance(twin, Awaited):
            assert twin.get_or_set("key", made) == "made"
            assert twin.get("key") == "made"
        else:
            with pytest.raises(TypeError, match="async"):
                twin.get_or_set("key", made)
            assert twin.has_key("key") is False
