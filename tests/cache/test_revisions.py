"""Compare-and-set: who writes over what nobody has changed succeeds, all others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client.entry import Entry
from django_nats.client.steps import Steps
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable
from tests.cache.conftest import Awaited, Left, MakeTwin, advance, plant


def meanwhile(monkeypatch: pytest.MonkeyPatch, twin: Any, happening: Callable[[], object]) -> None:
    """Let something happen, once, after the next read of a value and before what follows."""
    bucket = twin.plain._bucket
    read = bucket.get

    def reading(key: str) -> Steps[Entry | None]:
        entry = yield from read(key)
        monkeypatch.undo()
        happening()
        return entry

    monkeypatch.setattr(bucket, "get", reading)


class TestRevisions:
    def test_a_revision_is_of_one_write(self, twin: Any) -> None:
        twin.set("key", 1)
        value, first = twin.get_with_revision("key")
        assert (value, twin.get_with_revision("key")) == (1, (1, first))
        twin.set("key", 1)
        value, second = twin.get_with_revision("key")
        assert value == 1
        assert second > first > 0

    def test_without_a_value_it_is_zero(self, twin: Any) -> None:
        assert twin.get_with_revision("key") == (None, 0)
        assert twin.get_with_revision("key", "default") == ("default", 0)
        twin.set("key", 1, version=2)
        twin.delete("key", version=2)
        assert twin.get_with_revision("key", version=2) == (None, 0)

    def test_none_is_a_value_with_a_revision(self, twin: Any) -> None:
        twin.set("key", None)
        value, revision = twin.get_with_revision("key", "default")
        assert value is None
        assert revision > 0


class TestSetWithRevision:
    def test_only_over_what_was_read(self, twin: Any) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        assert twin.set("key", "new", revision=revision) is True
        assert twin.set("key", "newer", revision=revision) is False
        assert twin.get("key") == "new"

    @pytest.mark.parametrize("change", ["set", "touch", "delete", "clear"])
    def test_any_change_is_a_conflict(self, twin: Any, change: str) -> None:
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

    def test_zero_is_only_where_there_is_nothing(self, twin: Any) -> None:
        assert twin.set("key", 1, revision=0) is True
        assert twin.set("key", 2, revision=0) is False
        twin.delete("key")
        assert twin.set("key", 3, revision=0) is True
        assert twin.get("key") == 3

    def test_timeout_and_version(self, twin: Any) -> None:
        twin.set("key", "one", version=1)
        assert twin.set("key", "two", 70, 2, revision=0) is True
        assert twin.ttl("key", version=2) == Left(70)
        assert twin.get("key") == "one"

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_with_no_time_to_live_it_deletes_what_was_read(self, twin: Any, timeout: int) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        assert twin.set("key", "new", timeout, revision=revision + 1) is False
        assert twin.get("key") == "old"
        assert twin.set("key", "new", timeout, revision=revision) is True
        assert twin.has_key("key") is False
        assert twin.set("key", "new", timeout, revision=0) is True
        assert twin.set("key", "new", timeout, revision=revision) is False
        assert twin.has_key("key") is False

    def test_it_deletes_nothing_that_is_written_meanwhile(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        meanwhile(monkeypatch, twin, lambda: twin.plain.set("key", "theirs"))
        assert twin.set("key", "ours", 0, revision=revision) is False
        assert twin.get("key") == "theirs"

    def test_when_the_server_falls_silent_meanwhile_it_raises(
        self, own_server: NatsServer, make_twin: MakeTwin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin = make_twin(on=own_server, OPTIONS={"REQUEST_TIMEOUT": 0.2})
        twin.set("key", "old")
        _, revision = twin.get_with_revision("key")
        meanwhile(monkeypatch, twin, own_server.pause)
        with pytest.raises(Unavailable):
            twin.set("key", "ours", 0, revision=revision)
        own_server.resume()


class TestSetNx:
    def test_only_where_there_is_nothing(self, twin: Any) -> None:
        assert twin.set("key", 1, nx=True) is True
        assert twin.set("key", 2, nx=True) is False
        assert twin.get("key") == 1
        assert twin.set("key", 3, nx=False) is None
        assert twin.get("key") == 3

    def test_over_what_was_deleted_or_has_expired(self, twin: Any) -> None:
        twin.set("key", 1, 60)
        twin.delete("key")
        assert twin.set("key", 2, 60, nx=True) is True
        advance(twin, 61)
        assert twin.set("key", 3, 60, nx=True) is True

    def test_two_conditions_are_one_too_many(self, twin: Any) -> None:
        twin.set("key", 1)
        with pytest.raises(ValueError, match="nx and revision"):
            twin.set("key", 2, nx=True, revision=5)
        assert twin.get("key") == 1
        assert twin.set("new", 2, nx=True, revision=0) is True


class TestUpdate:
    def test_the_function_gets_the_value_and_gives_the_new_one(self, twin: Any) -> None:
        twin.set("key", [1])
        assert twin.update("key", lambda value: [*value, 2]) == [1, 2]
        assert twin.get("key") == [1, 2]

    def test_without_a_value_it_gets_the_default(self, twin: Any) -> None:
        assert twin.update("key", lambda value: value is None) is True
        assert twin.update("other", lambda value: value + 1, 41) == 42
        assert twin.get_many(["key", "other"]) == {"key": True, "other": 42}

    def test_timeout_and_version(self, twin: Any) -> None:
        twin.update("key", lambda _: 1, timeout=70, version=2)
        assert (twin.ttl("key"), twin.ttl("key", version=2)) == (0, Left(70))
        twin.update("key", lambda _: 1, timeout=None, version=2)
        assert twin.ttl("key", version=2) is None

    def test_it_is_called_again_when_another_wrote_meanwhile(self, twin: Any) -> None:
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
    def test_a_key_deleted_or_made_meanwhile_is_a_change_too(
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

    def test_what_the_function_raises_is_raised_and_nothing_is_stored(self, twin: Any) -> None:
        twin.set("key", 1)
        with pytest.raises(ZeroDivisionError):
            twin.update("key", lambda value: value / 0)
        assert twin.get("key") == 1

    def test_an_unreadable_value_counts_as_none_and_is_replaced(self, twin: Any) -> None:
        plant(twin, "key", b"garbage", "pickle")
        assert twin.update("key", lambda value: value, "default") == "default"
        assert twin.get("key") == "default"

    def test_a_coroutine_function_goes_with_the_async_method(self, make_twin: MakeTwin) -> None:
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
