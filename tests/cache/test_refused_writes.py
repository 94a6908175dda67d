"""A refused unconditional write deletes the old value; a conditional one keeps it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.cached_db import SessionStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull, ValueTooLarge
from tests.cache.conftest import MakeTwin, stored
from tests.conftest import PATIENT, MakeCache, api
from tests.support.ports import free_port

FULL = {"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 19_000}
JSON = "django_nats.serializers.JSONSerializer"


def _unserializable() -> object:
    return datetime.timezone  # a class, which JSON cannot represent


REFUSALS: dict[str, tuple[dict[str, Any], Any, type[Exception]]] = {
    "over MAX_VALUE_SIZE": ({"MAX_VALUE_SIZE": 8000}, "x" * 9000, ValueTooLarge),
    "over max_payload": (
        {"MAX_VALUE_SIZE": 4_000_000, "STORAGE": "file"},
        "x" * 2_000_000,
        ValueTooLarge,
    ),
    "full in memory": (FULL, "x" * 18_000, BucketFull),
    "full on file": ({**FULL, "STORAGE": "file"}, "x" * 18_000, BucketFull),
    "not serializable": ({"SERIALIZER": JSON}, _unserializable(), TypeError),
}


@pytest.fixture(params=REFUSALS)
def refused(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any, type[Exception]]:
    return REFUSALS[request.param]


@pytest.fixture
def cache(make_twin: MakeTwin, refused: Any) -> Any:
    """Return a cache with values under ``key`` and ``other`` that refuses the value to set."""
    options, _, _ = refused
    cache = make_twin(OPTIONS=options)
    cache.set("other", "x" * (8000 if "EVICT" in options else 1))
    cache.set("key", "old")
    return cache


class TestUnconditional:
    def test_a_refused_set_leaves_no_value(self, cache: Any, refused: Any) -> None:
        _, value, error = refused
        with pytest.raises(error):
            cache.set("key", value)
        assert cache.get("key") is None
        assert stored(cache, "key") is None
        assert cache.get("other") is not None

    def test_a_refused_set_without_a_timeout_leaves_no_value(
        self, cache: Any, refused: Any
    ) -> None:
        _, value, error = refused
        with pytest.raises(error):
            cache.set("key", value, None)
        assert cache.get("key") is None

    def test_a_refused_set_of_another_version_leaves_that_version_without_a_value(
        self, cache: Any, refused: Any
    ) -> None:
        _, value, error = refused
        cache.set("key", "second", version=2)
        with pytest.raises(error):
            cache.set("key", value, version=2)
        assert cache.get("key", version=2) is None
        assert cache.get("key") == "old"

    def test_a_refused_set_many_leaves_no_value(self, cache: Any, refused: Any) -> None:
        _, value, error = refused
        values = {"small": 1, "key": value}
        if error is TypeError:
            with pytest.raises(error):
                cache.set_many(values)
            assert cache.get("small") is None
        else:
            assert cache.set_many(values) == ["key"]
            assert cache.get("small") == 1
        assert cache.get("key") is None
        assert cache.get("other") is not None

    def test_a_refused_set_of_a_new_key_leaves_no_value(self, cache: Any, refused: Any) -> None:
        _, value, error = refused
        with pytest.raises(error):
            cache.set("new", value)
        assert cache.get("new") is None
        cache.set("new", 1)
        assert cache.get("new") == 1


CONDITIONAL: dict[str, Callable[[Any, Any], object]] = {
    "add": lambda cache, value: cache.add("key", value),
    "set nx": lambda cache, value: cache.set("key", value, nx=True),
    "set revision": lambda cache, value: cache.set(
        "key", value, revision=cache.get_with_revision("key")[1]
    ),
    "update": lambda cache, value: cache.update("key", lambda _: value),
    "set xx": lambda cache, value: cache.set("key", value, xx=True),
}


@pytest.mark.parametrize("write", CONDITIONAL.values(), ids=CONDITIONAL)
def test_a_refused_conditional_write_leaves_the_old_value(
    cache: Any, refused: Any, write: Callable[[Any, Any], object]
) -> None:
    _, value, error = refused
    try:
        write(cache, value)
    except error:
        pass
    assert cache.get("key") == "old"


def test_a_refused_move_leaves_no_value_at_its_target(make_twin: MakeTwin) -> None:
    cache = make_twin(OPTIONS={"MAX_VALUE_SIZE": 8000})
    cache.set("key", "old", version=2)
    cache.set("key", "x" * 7000)
    cache.plain.bucket._writer.max_message = 1000  # as after a change of the bucket
    with pytest.raises(ValueTooLarge):
        cache.incr_version("key")
    assert cache.get("key", version=2) is None
    assert cache.get("key") == "x" * 7000


def test_a_value_that_only_the_server_finds_too_large_leaves_no_value(make_twin: MakeTwin) -> None:
    cache = make_twin()
    cache.set("key", "old")
    stream = cache.plain.bucket.config.stream
    config = api(cache.plain, f"STREAM.INFO.{stream}")["config"]
    api(cache.plain, f"STREAM.UPDATE.{stream}", {**config, "max_msg_size": 1000})
    with pytest.raises(ValueTooLarge):
        cache.set("key", "x" * 5000)
    assert cache.get("key") is None


def test_a_refused_set_leaves_no_value_under_fail_open(make_twin: MakeTwin) -> None:
    options, value, _ = REFUSALS["full in memory"]
    cache = make_twin(OPTIONS={**options, "FAIL_OPEN": True})
    cache.set("other", "x" * 8000)
    cache.set("key", "old")
    assert cache.set("key", value) is None
    assert cache.get("key") is None
    cache.set("key", "old")
    assert cache.set_many({"key": value}) == ["key"]
    assert cache.get("key") is None


def test_a_refused_set_of_a_new_key_leaves_no_tombstone_on_a_full_bucket(
    make_twin: MakeTwin,
) -> None:
    cache = make_twin(OPTIONS={"EVICT": False, "MAX_ENTRIES": 3})
    cache.set_many({"a": 1, "b": 2})
    cache.set("c", 3)
    for number in range(3):
        with pytest.raises(BucketFull):
            cache.set(f"new-{number}", 1)
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}


# Sessions ------------------------------------------------------------------------------------


def _save(store: SessionStore, asynchronously: bool) -> None:
    if asynchronously:
        async_to_sync(store.asave)()
    else:
        store.save()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "asynchronously",
    [
        pytest.param(False, id="sync"),
        pytest.param(True, id="async"),
    ],
)
@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("refusal", ["over MAX_VALUE_SIZE", "full in memory"])
def test_a_cached_db_session_is_not_served_with_its_old_data(
    make_cache: MakeCache, refusal: str, fail_open: bool, asynchronously: bool
) -> None:
    options, value, error = REFUSALS[refusal]
    cache = make_cache(OPTIONS={**options, "FAIL_OPEN": fail_open})
    cache.set("other", "x" * 7000)

    def request(key: str | None) -> SessionStore:
        store = SessionStore(key)
        store._cache = cache
        return store

    first = request(None)
    first["cart"] = "old"
    _save(first, asynchronously)
    second = request(first.session_key)
    assert second["cart"] == "old"
    second["cart"] = value
    _save(second, asynchronously)  # Django logs what the cache raises
    third = request(first.session_key)
    try:
        third["seen"] = True
    except error:
        # Loading stores in the cache what the database has, and Django lets that raise.
        assert not fail_open or error is ValueTooLarge
    else:
        assert third["cart"] == value
        _save(third, asynchronously)
    assert DatabaseStore(first.session_key)["cart"] == value


# Limits beyond the bucket --------------------------------------------------------------------

_ACCOUNTS = """
accounts {
  APP { jetstream: { max_mem: 300K, max_file: 300K }, users: [{user: web, password: pw}] }
  SYS { users: [{user: sys, password: pw}] }
}
system_account: SYS
"""
_SERVER = "jetstream { max_mem: 300K, max_file: 300K }"


@pytest.fixture(scope="module", params=["account", "server"])
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield what has a limit, the URL of such a server, and the options to log in."""
    config = _ACCOUNTS if request.param == "account" else _SERVER
    with NatsServer(config=config, token="") as server:
        login = {"USER": "web", "PASSWORD": "pw"} if request.param == "account" else {}
        yield request.param, server.url, login
        process.close()


@pytest.mark.parametrize("storage", ["memory", "file"])
@pytest.mark.parametrize("max_bytes", [None, 200_000])
def test_the_error_names_a_full_account_or_server_and_no_value_is_left(
    limited: tuple[str, str, dict[str, str]], storage: str, max_bytes: int | None
) -> None:
    what, url, login = limited
    options: dict[str, Any] = {**login, "STORAGE": storage, **PATIENT}
    kept = NatsCache(url, {"OPTIONS": {**options, "BUCKET": "kept", "STORAGE": "file"}})
    kept.get("key")  # see keep_store_directory
    filler = NatsCache(url, {"OPTIONS": {**options, "BUCKET": "filler"}})
    cache = NatsCache(url, {"OPTIONS": {**options, "BUCKET": "refused"} | _limit(max_bytes)})
    try:
        cache.set("key", "old")
        large = {str(number): os.urandom(20_000) for number in range(100)}
        assert filler.set_many(large)
        with pytest.raises(BucketFull) as raised:
            cache.set("key", "x" * 40_000)
        message = str(raised.value)
        assert "':1:key' was not stored" in message
        assert (
            f"the {'account' if what == 'account' else 'NATS server'} has no JetStream" in message
        )
        assert f"no JetStream {storage} storage" in message
        limits = {"account": ("max_mem", "max_file")}.get(
            what, ("max_memory_store", "max_file_store")
        )
        assert f"({limits[storage == 'file']})" in message
        assert "EVICT" not in message
        assert ("lower MAX_BYTES" in message) is (max_bytes is not None)
        assert cache.get("key") is None
        open_cache = NatsCache(
            url, {"OPTIONS": {**options, "BUCKET": "refused", "FAIL_OPEN": True}}
        )
        assert open_cache.set("key", "x" * 40_000) is None
    finally:
        for each in (filler, cache):
            api(each, f"STREAM.DELETE.{each.bucket.config.stream}")


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_a_bucket_that_would_reserve_too_much_is_reported_once(
    limited: tuple[str, str, dict[str, str]], storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, url, login = limited
    bucket = {"STORAGE": storage, "BUCKET": "vast", "MAX_BYTES": "1GiB"}
    options = {**login, **PATIENT, **bucket}
    with pytest.raises(BucketFull, match=r"^The bucket vast cannot be created: .* Lower MAX_BYTES"):
        NatsCache(url, {"OPTIONS": {**options, "NAME": storage}}).set("key", 1)
    caplog.clear()
    cache = NatsCache(url, {"OPTIONS": {**options, "NAME": f"open {storage}", "FAIL_OPEN": True}})
    for _ in range(3):
        assert cache.set("key", 1) is None
        assert cache.get("key") is None
    assert len([each for each in caplog.messages if "reserve MAX_BYTES" in each]) == 1


def _limit(max_bytes: int | None) -> dict[str, Any]:
    return {} if max_bytes is None else {"MAX_BYTES": max_bytes, "MAX_VALUE_SIZE": 100_000}


# The old value cannot be deleted -------------------------------------------------------------


def test_a_too_large_value_says_the_old_one_is_kept_while_the_server_is_unreachable() -> None:
    with NatsServer(port=free_port()) as server:
        options = {"TOKEN": server.token, "STORAGE": "file", **PATIENT}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.set("key", "old")
        server.kill()
        with pytest.raises(ValueTooLarge, match="Its old value may still be readable"):
            cache.set("key", "x" * 3_000_000)
        process.close()


def test_a_value_that_cannot_be_serialized_raises_type_error_while_the_server_is_unreachable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = NatsCache(f"nats://127.0.0.1:{free_port()}", {"OPTIONS": {"SERIALIZER": JSON}})
    with pytest.raises(TypeError, match="JSON"):
        cache.set("key", _unserializable())
    assert any("the old one may still be readable" in each for each in caplog.messages)
    process.close()
