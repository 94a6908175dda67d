"""Compare-and-set: a conditional write succeeds only if its condition still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client.kv.entry import Entry
from django_nats.client.protocol.steps import Steps
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.cache.conftest import Awaited, Left, MakeTwin, advance, plant
from tests.support.patience import hurry


def after_the_next_read(
    monkeypatch: pytest.MonkeyPatch, twin: Any, action: Callable[[], object]
) -> None:
    """Run an action once, between the next read of a value and the step after it."""
    bucket = twin.plain.bucket
    read = bucket.get

    def reading(key: str) -> Steps[Entry | None]:
        entry = yield from read(key)
        monkeypatch.undo()
        action()
        return entry

    monkeypatch.setattr(bucket, "get", reading)


class TestRevisions:
    def test_every_write_has_a_new_revision(self, twin: Any) -> None:
        twin.set("key", 1)
        value, first = twin.get_with_revision("key")
        assert (value, twin.get_with_revision("key")) == (1, (1, first))
        twin.set("key", 1)
        value, second = twin.get_with_revision("key")
        assert value == 1
        assert second > first > 0

    def test_the_revision_of_a_missing_key_is_zero(self, twin: Any) -> None:
        assert twin.get_with_revision("key") == (None, 0)
        assert twin.get_with_revision("key", "default") == ("default", 0)
        twin.set("key", 1, version=2)
        twin.delete("key", version=2)
        assert twin.get_with_revision("key", version=2) == (None, 0)

    def test_a_stored_none_has_a_revision(self, twin: Any) -> None:
        twin.set("key", None)
        value, revision = twin.get_with_revision("key", "default")
        assert value is None
        assert revision > 0


class TestSetWithRevision:
    def test_set_with_a_revision_replaces_only_that_revision(self, twin: Any) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        assert twin.set("key", "new", revision=revision) is True
        assert twin.set("key", "newer", revision=revision) is False
        assert twin.get("key") == "new"

    @pytest.mark.parametrize("change", ["set", "touch", "delete", "clear"])
    def test_set_with_a_revision_fails_after_any_change(self, twin: Any, change: str) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        changes = {
            "set": lambda: twin.set("key", "theirs"),
            "touch": lambda: twin.touch("key"),
            "delete": lambda: twin.delete("key"),
            "clear": lambda: twin.clear(),
        }
        changes[change]()
        left = twin.get("key")
        assert twin.set("key", "ours", revision=revision) is False
        assert twin.get("key") == left

    def test_set_with_revision_zero_only_stores_a_missing_key(self, twin: Any) -> None:
        assert twin.set("key", 1, revision=0) is True
        assert twin.set("key", 2, revision=0) is False
        twin.delete("key")
        assert twin.set("key", 3, revision=0) is True
        assert twin.get("key") == 3

    def test_set_with_a_revision_uses_timeout_and_version(self, twin: Any) -> None:
        twin.set("key", "one", version=1)
        assert twin.set("key", "two", 70, 2, revision=0) is True
        assert twin.ttl("key", version=2) == Left(70)
        assert twin.get("key") == "one"

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_a_timeout_of_zero_deletes_the_given_revision(self, twin: Any, timeout: int) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        assert twin.set("key", "new", timeout, revision=revision + 1) is False
        assert twin.get("key") == "old"
        assert twin.set("key", "new", timeout, revision=revision) is True
        assert twin.has_key("key") is False
        assert twin.set("key", "new", timeout, revision=0) is True
        assert twin.set("key", "new", timeout, revision=revision) is False
        assert twin.has_key("key") is False

    def test_a_timeout_of_zero_keeps_a_value_written_meanwhile(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        after_the_next_read(monkeypatch, twin, lambda: twin.plain.set("key", "theirs"))
        assert twin.set("key", "ours", 0, revision=revision) is False
        assert twin.get("key") == "theirs"

    def test_a_timeout_of_zero_raises_if_the_server_stops_answering(
        self, own_server: NatsServer, make_twin: MakeTwin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin = make_twin(on=own_server)
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")

        def silence() -> None:
            own_server.pause()
            hurry(twin.plain, 0.2)  # not before: the read must be answered

        after_the_next_read(monkeypatch, twin, silence)
        with pytest.raises(Unavailable):
            twin.set("key", "ours", 0, revision=revision)
        own_server.resume()


class TestSetNx:
    def test_nx_only_stores_a_missing_key(self, twin: Any) -> None:
        assert twin.set("key", 1, nx=True) is True
        assert twin.set("key", 2, nx=True) is False
        assert twin.get("key") == 1
        assert twin.set("key", 3, nx=False) is None
        assert twin.get("key") == 3

    def test_nx_stores_over_a_deleted_or_expired_value(self, twin: Any) -> None:
        twin.set("key", 1, 60)
        twin.delete("key")
        assert twin.set("key", 2, 60, nx=True) is True
        advance(twin, 61)
        assert twin.set("key", 3, 60, nx=True) is True

    def test_two_conditions_raise_value_error(self, twin: Any) -> None:
        twin.set("key", 1)
        for conditions in (
            {"nx": True, "revision": 5},
            {"nx": True, "xx": True},
            {"xx": True, "revision": 5},
            {"xx": True, "revision": 0},
        ):
            with pytest.raises(ValueError, match="nx, xx and revision"):
                twin.set("key", 2, **conditions)
        assert twin.get("key") == 1
        assert twin.set("new", 2, nx=True, revision=0) is True


class TestSetXx:
    def test_xx_only_replaces_an_existing_value(self, twin: Any) -> None:
        assert twin.set("key", 1, xx=True) is False
        assert twin.has_key("key") is False
        twin.set("key", 1)
        assert twin.set("key", 2, 70, xx=True) is True
        assert twin.get("key") == 2
        assert twin.ttl("key") == Left(70)
        assert twin.set("key", 3, xx=False) is None

    def test_xx_does_not_replace_a_deleted_or_expired_value(self, twin: Any) -> None:
        twin.set("key", 1)
        twin.delete("key")
        assert twin.set("key", 2, xx=True) is False
        twin.set("key", 1, 60)
        advance(twin, 61)
        assert twin.set("key", 2, xx=True) is False

    def test_xx_does_not_replace_an_unreadable_value(self, make_twin: MakeTwin) -> None:
        make_twin().set("key", {"pickled": 1})
        twin = make_twin(OPTIONS={"SERIALIZER": "django_nats.serializers.JSONSerializer"})
        assert twin.set("key", 2, xx=True) is False

    def test_xx_checks_the_given_version(self, twin: Any) -> None:
        twin.set("key", 1, version=2)
        assert twin.set("key", 2, xx=True) is False
        assert twin.set("key", 2, version=2, xx=True) is True

    def test_xx_with_timeout_zero_deletes_an_existing_value(self, twin: Any) -> None:
        assert twin.set("key", 1, 0, xx=True) is False
        twin.set("key", 1)
        assert twin.set("key", 2, 0, xx=True) is True
        assert twin.has_key("key") is False

    def test_xx_does_not_undo_a_delete_in_between(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin.set("key", 1)
        decode = twin.plain._value

        def decode_and_delete(made: str, entry: Entry | None) -> Any:
            value = decode(made, entry)
            monkeypatch.undo()
            twin.plain.delete("key")
            return value

        monkeypatch.setattr(twin.plain, "_value", decode_and_delete)
        assert twin.set("key", 2, xx=True) is False
        assert twin.has_key("key") is False


class TestUpdate:
    def test_update_stores_and_returns_the_result_of_the_function(self, twin: Any) -> None:
        twin.set("key", [1])
        assert twin.update("key", lambda value: [*value, 2]) == [1, 2]
        assert twin.get("key") == [1, 2]

    def test_update_calls_the_function_with_the_default_for_a_missing_key(self, twin: Any) -> None:
        assert twin.update("key", lambda value: value is None) is True
        assert twin.update("other", lambda value: value + 1, 41) == 42
        assert twin.get_many(["key", "other"]) == {"key": True, "other": 42}

    def test_update_uses_timeout_and_version(self, twin: Any) -> None:
        twin.update("key", lambda _: 1, timeout=70, version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (0, Left(70))
        twin.update("key", lambda _: 1, timeout=None, version=2)
        assert twin.ttl("key", version=2) is None

    def test_update_calls_the_function_again_after_a_concurrent_write(self, twin: Any) -> None:
        twin.set("key", "first")
        seen = []

        def function(value: str) -> str:
            seen.append(value)
            if len(seen) < 3:
                twin.plain.set("key", f"theirs {len(seen)}")
            return f"{value}, ours"

        assert twin.update("key", function) == "theirs 2, ours"
        assert twin.get("key") == "theirs 2, ours"
        assert seen == ["first", "theirs 1", "theirs 2"]

    @pytest.mark.parametrize("before", [None, "value"])
    def test_update_notices_a_concurrent_delete_or_creation(
        self, twin: Any, before: str | None
    ) -> None:
        seen = []

        def function(value: str | None) -> str:
            seen.append(value)
            if len(seen) == 1:
                twin.plain.delete("key") if before else twin.plain.set("key", "theirs")
            return "ours"

        if before:
            twin.set("key", before)
        assert twin.update("key", function) == "ours"
        assert seen == [before, None if before else "theirs"]

    def test_an_error_of_the_function_is_raised_and_nothing_is_stored(self, twin: Any) -> None:
        twin.set("key", 1)
        with pytest.raises(ZeroDivisionError):
            twin.update("key", lambda value: value / 0)
        assert twin.get("key") == 1

    def test_update_replaces_an_unreadable_value(self, twin: Any) -> None:
        plant(twin, "key", b"garbage", "pickle")
        assert twin.update("key", lambda value: value, "default") == "default"
        assert twin.get("key") == "default"

    def test_only_the_async_method_accepts_a_coroutine_function(self, make_twin: MakeTwin) -> None:
        twin = make_twin()

        async def function(value: int) -> int:
            await asyncio.sleep(0)
            return value + 1

        if isinstance(twin, Awaited):
            assert twin.update("key", function, 1) == 2
        else:
            with pytest.raises(TypeError, match="async method"):
                twin.update("key", function, 1)
            assert twin.has_key("key") is False
