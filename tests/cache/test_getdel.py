"""getdel() reads and deletes a value, and returns it to only one of several callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_nats import realtime
from django_nats.cache import NatsCache
from django_nats.client.kv import writing
from django_nats.client.protocol.steps import Steps
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull, NatsError, OutcomeUnknown
from tests.cache.conftest import MakeTwin, advance, plant, stored
from tests.cache.test_concurrency import in_threads
from tests.support.patience import hurry

CALLERS = 8
ROUNDS = 20


def before_the_key_is_deleted(
    monkeypatch: pytest.MonkeyPatch, twin: Any, action: Callable[[], object]
) -> None:
    """Run an action once, after the value has been read and before the key is deleted."""
    bucket = twin.plain.bucket
    pop = bucket.pop

    def interrupted(key: str) -> Steps[Any]:
        monkeypatch.undo()
        steps = pop(key)
        advance_steps: Callable[[Any], Any] = steps.send
        answer: Any = None
        has_run = False
        while True:
            try:
                effect = advance_steps(answer)
            except StopIteration as end:
                return end.value
            if not has_run and b"KV-Operation" in getattr(effect, "header", b""):
                has_run = True
                action()
            try:
                answer = yield effect
            except NatsError as error:
                advance_steps, answer = steps.throw, error
            else:
                advance_steps = steps.send

    monkeypatch.setattr(bucket, "pop", interrupted)


class TestResult:
    @pytest.mark.parametrize(
        "value", [0, 1.5, "", "é", b"\x00", False, None, [1, [2]], {"a": (1, 2)}, "x" * 100_000]
    )
    def test_a_value_of_any_kind_is_returned_once(self, twin: Any, value: Any) -> None:
        twin.set("key", value)
        found = twin.getdel("key", "default")
        assert (found, type(found)) == (value, type(value))
        assert twin.has_key("key") is False
        assert twin.getdel("key", "default") == "default"

    def test_getdel_of_a_missing_key_returns_the_default(self, twin: Any) -> None:
        assert twin.getdel("key") is None
        assert twin.getdel("key", "default") == "default"
        assert stored(twin, "key") is None

    def test_getdel_of_an_expired_value_returns_the_default(self, twin: Any) -> None:
        twin.set("key", 1, 1000)
        advance(twin, 1001)
        assert twin.getdel("key", "default") == "default"

    def test_getdel_uses_the_given_version(self, twin: Any) -> None:
        twin.set("key", "one")
        twin.set("key", "two", version=2)
        assert twin.getdel("key", version=2) == "two"
        assert twin.getdel("key", "default", version=2) == "default"
        assert twin.get("key") == "one"

    def test_getdel_works_on_keys_that_subjects_cannot_hold(self, twin: Any) -> None:
        key = "ключ." + "x" * 200
        twin.set(key, 1)
        assert twin.getdel(key) == 1
        assert twin.has_key(key) is False

    def test_getdel_returns_the_value_of_another_client(self, twin: Any) -> None:
        plant(twin, "key", b"raw", None)
        value = twin.get("key", "default")
        assert value != "default"
        assert twin.getdel("key", "default") == value
        assert stored(twin, "key") is None

    def test_an_unreadable_value_is_missing_and_deleted(
        self, twin: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        plant(twin, "key", b"garbage", "pickle")
        assert twin.getdel("key", "default") == "default"
        assert stored(twin, "key") is None
        assert "unreadable" in caplog.text

    def test_hits_and_misses_are_counted(self, twin: Any) -> None:
        twin.set("key", 1)
        bucket = twin.plain.bucket
        before = bucket.hits, bucket.misses
        twin.getdel("key")
        twin.getdel("key")
        assert (bucket.hits - before[0], bucket.misses - before[1]) == (1, 1)


class TestRaces:
    def test_only_one_of_several_racing_threads_gets_the_value(self, cache: NatsCache) -> None:
        for number in range(ROUNDS):
            cache.set("key", number)
            found: list[Any] = []

            def work(found: list[Any] = found) -> None:
                found.append(cache.getdel("key", "none"))

            in_threads(CALLERS, work)
            assert sorted(found, key=str) == [number, *["none"] * (CALLERS - 1)]

    async def test_only_one_of_several_racing_tasks_gets_the_value(self, cache: NatsCache) -> None:
        for number in range(ROUNDS):
            await cache.aset("key", number)
            found = await asyncio.gather(*(cache.agetdel("key", "none") for _ in range(CALLERS)))
            assert sorted(found, key=str) == [number, *["none"] * (CALLERS - 1)]

    def test_a_value_written_meanwhile_is_returned_and_deleted(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin.set("key", "old")
        before_the_key_is_deleted(monkeypatch, twin, lambda: twin.plain.set("key", "new"))
        assert twin.getdel("key") == "new"
        assert stored(twin, "key") is None

    @pytest.mark.parametrize("end", ["delete", "getdel", "clear"])
    def test_a_value_deleted_by_another_client_meanwhile_is_not_returned(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        twin.set("key", "old")
        others: list[Any] = []

        def action() -> None:
            others.append(getattr(twin.plain, end)(*(() if end == "clear" else ("key",))))

        before_the_key_is_deleted(monkeypatch, twin, action)
        assert twin.getdel("key", "default") == "default"
        assert others == [{"delete": True, "getdel": "old", "clear": None}[end]]


def test_getdel_works_in_a_bucket_too_full_for_a_tombstone(make_twin: MakeTwin) -> None:
    twin = make_twin(OPTIONS={"EVICT": False, "MAX_ENTRIES": 2})
    twin.set_many({"key": 1, "other": 2})
    with pytest.raises(BucketFull):
        twin.add("one-more", 3)
    assert twin.getdel("key") == 1
    assert twin.getdel("key", "default") == "default"
    assert twin.get("other") == 2


@pytest.mark.usefixtures("without_pings")
@pytest.mark.parametrize("fail_open", [False, True])
def test_getdel_raises_or_returns_the_default_if_the_server_stops_answering(
    own_server: NatsServer,
    make_twin: MakeTwin,
    monkeypatch: pytest.MonkeyPatch,
    fail_open: bool,
) -> None:
    twin = make_twin(on=own_server, OPTIONS={"FAIL_OPEN": fail_open})
    twin.set("key", "value")

    def silence() -> None:
        own_server.pause()
        hurry(twin.plain, 0.2)
        # The time for further tries is over by then.
        monkeypatch.setattr(writing, "monotonic", lambda: realtime.monotonic() + 3600)

    before_the_key_is_deleted(monkeypatch, twin, silence)
    if fail_open:
        assert twin.getdel("key", "default") == "default"
    else:
        with pytest.raises(OutcomeUnknown):
            twin.getdel("key", "default")
    own_server.resume()
