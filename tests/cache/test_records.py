"""Dictionaries that callers change at once: what the tests of sessions cannot bring about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.cache.records import Record, Records
from django_nats.client import drivers
from django_nats.client.kv.copies import Attempt, Copy
from django_nats.client.protocol.steps import Steps
from django_nats.exceptions import WrongRevision
from tests.cache.conftest import plant
from tests.conftest import MakeCache

HOUR = 3600


def an_hour(data: Any) -> float:
    return HOUR


@pytest.fixture
def run(cache: NatsCache) -> Callable[[Steps[Any]], Any]:
    return lambda steps: drivers.run(cache.session, steps)


@pytest.fixture
def records(cache: NatsCache) -> Records:
    return Records(cache, "key")


Run = Callable[[Steps[Any]], Any]


def test_a_key_without_a_value_has_the_sequence_of_its_tombstone(
    cache: NatsCache, records: Records, run: Run
) -> None:
    assert run(records.read("key")) == (None, Record(0, dict))
    added = run(records.add("key", {"a": 1}, HOUR))
    cache.delete("key")
    data, record = run(records.read("key"))
    assert data is None
    assert record.sequence == added.sequence + 1
    assert record.decode() == {}


def test_a_store_at_a_sequence_that_has_passed_does_nothing(
    cache: NatsCache, records: Records, run: Run
) -> None:
    _, missing = run(records.read("key"))
    added = run(records.add("key", {"a": 1}, HOUR))
    cache.delete("key")
    for each in (missing, added):
        assert run(records.store("key", {"old": 1}, HOUR, each.sequence)) is None
        assert run(records.store("key", {"old": 1}, 0, each.sequence)) is None
    assert cache.get("key") is None


def test_a_record_decodes_what_was_stored_each_time(records: Records, run: Run) -> None:
    data = {"list": [1]}
    record = run(records.add("key", data, HOUR))
    data["list"].append(2)
    assert record.decode() == {"list": [1]}
    assert record.decode() is not record.decode()


def test_only_a_key_without_a_readable_dictionary_can_be_added(
    cache: NatsCache, records: Records, run: Run
) -> None:
    assert run(records.add("key", {"a": 1}, HOUR))
    assert run(records.add("key", {"a": 2}, HOUR)) is None
    assert run(records.add("key", {"a": 2}, 0)) is None
    plant(cache, "key", b"nonsense", "pickle")
    assert run(records.add("key", {"a": 3}, HOUR))
    assert cache.get("key") == {"a": 3}
    assert run(records.add("other", {"a": 1}, -1))
    assert cache.get("other") is None


def test_an_update_is_repeated_as_long_as_others_are_faster(
    cache: NatsCache, records: Records, run: Run
) -> None:
    record = run(records.add("key", {"old": 1}, HOUR))
    others = iter("abc")

    def seconds(data: Any) -> float:
        """Let another caller store something before each of the first tries."""
        if (name := next(others, None)) is not None:
            cache.update("key", lambda found: {**found, name: 1, "n": found.get("n", 0) + 1})
        return HOUR

    data = {"old": 1, "mine": 1}
    updated = run(records.update("key", data, record, seconds))
    assert data == updated.decode() == cache.get("key")
    assert data == {"old": 1, "mine": 1, "a": 1, "b": 1, "c": 1, "n": 3}


def test_an_update_that_never_ends_is_an_error_without_the_key(
    cache: NatsCache, records: Records, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.cache.records.MAX_ROUNDS", 3)
    record = run(records.add("secret", {"old": 1}, HOUR))

    def seconds(data: Any) -> float:
        cache.update("secret", lambda stored: {**stored, "n": stored.get("n", 0) + 1})
        return HOUR

    with pytest.raises(WrongRevision) as raised:
        run(records.update("secret", {"old": 1, "mine": 1}, record, seconds))
    assert "secret" not in str(raised.value)
    assert cache.get("secret") == {"old": 1, "n": 3}


def test_an_update_of_what_became_unreadable_finds_nothing(
    cache: NatsCache, records: Records, run: Run
) -> None:
    record = run(records.add("key", {"old": 1}, HOUR))
    plant(cache, "key", b"nonsense", "pickle")
    assert run(records.update("key", {"old": 1, "mine": 1}, record, an_hour)) is None
    run(records.take("key", {}, record))
    assert cache.get_with_revision("key") == (None, 0)


def test_a_near_cache_that_says_a_key_has_no_value_is_not_trusted(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    near_cache = make_cache(OPTIONS={"NEAR_CACHE": {"MISSES": True}})
    near_cache.set("key", {"a": 1})
    miss = Copy(Attempt("key", "key"), None, 0, float("inf"))
    monkeypatch.setattr(near_cache.near, "find", lambda key: miss)
    assert near_cache.get("key") is None
    data, _ = drivers.run(near_cache.session, Records(near_cache, "key").read("key"))
    assert data == {"a": 1}
