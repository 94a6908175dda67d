"""Copies that are stored, refused, or made by a slow reader."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_nats.cache import NatsCache
from tests.conftest import MakeCache
from tests.support.sessions import OpenSession, Request


def copy(cache: NatsCache, request: Request) -> Any:
    return cache.get_with_revision(request.store.cache_key)[0]


def queries(request: Request) -> int:
    with CaptureQueriesContext(connection) as captured:
        request.load()
    return len(captured)


def test_a_save_makes_a_copy_that_needs_no_query(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    one = open_session().set(user=1, pair=(1, 2)).save()
    assert copy(session_cache, one) == {"user": 1, "pair": [1, 2]}  # as the database returns it
    assert queries(Request(one.key)) == 0
    one.set(user=2).save()
    assert copy(session_cache, one)["user"] == 2


def test_a_load_makes_a_copy_that_is_missing(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    one = open_session().set(user=1).save()
    session_cache.clear()
    another = open_session(one.key).load()
    assert copy(session_cache, one) == {"user": 1}
    another.set(user=2).save()
    assert copy(session_cache, one) == {"user": 2}


def test_an_existing_session_is_found_without_a_query(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    one = open_session().set(user=1).save()
    with CaptureQueriesContext(connection) as captured:
        assert open_session().call("exists", one.key)
    assert len(captured) == 0
    session_cache.clear()
    assert open_session().call("exists", one.key)


@pytest.mark.parametrize("ending", ["delete", "flush", "cycle_key"])
def test_the_copy_ends_with_the_session(
    session_cache: NatsCache, open_session: OpenSession, ending: str
) -> None:
    one = open_session().set(user=1).save()
    key = one.store.cache_key
    one.call(ending)
    assert session_cache.get_with_revision(key)[0] is None


# The age of a copy ---------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [60, 5, 0.5])
def test_a_copy_expires_at_its_age(
    session_cache: NatsCache, open_session: OpenSession, settings: Any, seconds: float
) -> None:
    if seconds != 60:  # the default
        settings.SESSION_COPY_AGE = seconds
    one = open_session().set(user=1).save()
    left = session_cache.pttl(one.store.cache_key)
    assert left is not None
    assert left <= seconds * 1000
    session_cache.clear()
    open_session(one.key).load()
    left = session_cache.pttl(one.store.cache_key)
    assert left is not None
    assert left <= seconds * 1000


def test_a_copy_expires_no_later_than_its_session(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    one = open_session().set(user=1)
    one.call("set_expiry", 30)
    one.save()
    assert 0 < (session_cache.ttl(one.store.cache_key) or 0) <= 30
    session_cache.clear()
    open_session(one.key).load()
    assert 0 < (session_cache.ttl(one.store.cache_key) or 0) <= 30


def test_no_copy_is_made_with_an_age_of_zero(
    session_cache: NatsCache, open_session: OpenSession, settings: Any
) -> None:
    settings.SESSION_COPY_AGE = 0
    one = open_session().set(user=1).save()
    assert open_session(one.key).data == {"user": 1}
    assert copy(session_cache, one) is None
    one.set(user=2).save()
    assert open_session(one.key).data == {"user": 2}


@pytest.mark.parametrize("age", [-1, "60", None, True, float("nan")])
def test_a_wrong_age_is_an_error_that_names_the_setting(
    use_cache: MakeCache, settings: Any, age: Any
) -> None:
    use_cache()
    settings.SESSION_COPY_AGE = age
    with pytest.raises(ImproperlyConfigured, match="SESSION_COPY_AGE"):
        Request()


# Refused copies ------------------------------------------------------------------------------


def test_a_copy_that_is_too_large_leaves_no_older_one(
    use_cache: MakeCache, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    cache = use_cache(OPTIONS={"MAX_VALUE_SIZE": 1000})
    one = open_session().set(user=1).save()
    one.set(cart="x" * 2000).save()
    assert copy(cache, one) is None
    assert open_session(one.key).data["cart"] == "x" * 2000
    assert "the copy of a session was refused" in caplog.text
    assert "ValueTooLarge" in caplog.text
    assert one.key not in caplog.text


def test_a_full_bucket_leaves_no_older_copy(
    use_cache: MakeCache, open_session: OpenSession
) -> None:
    limits = {"EVICT": False, "MAX_BYTES": 3000, "MAX_VALUE_SIZE": 2500}
    cache = use_cache(OPTIONS=limits)
    one = open_session().set(user=1).save()
    cache.set("other", "x" * 2000)
    one.set(cart="x" * 900).save()
    assert copy(cache, one) is None
    assert open_session(one.key).data["cart"] == "x" * 900


def test_a_copy_that_cannot_be_encoded_leaves_no_older_one(
    use_cache: MakeCache, open_session: OpenSession, settings: Any
) -> None:
    settings.SESSION_SERIALIZER = "tests.support.sessions.PickleSerializer"
    cache = use_cache(OPTIONS={"SERIALIZER": "django_nats.serializers.JSONSerializer"})
    one = open_session().set(user=1).save()
    assert copy(cache, one) == {"user": 1}
    one.set(seen={1, 2}).save()
    assert copy(cache, one) is None
    assert open_session(one.key).data["seen"] == {1, 2}


# Requests that overlap -----------------------------------------------------------------------


def test_of_two_saves_that_overlap_no_older_copy_stays(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    key = open_session().set(old=1).save().key
    one, another = open_session(key).load(), open_session(key).load()
    one.set(a=1).save()
    another.set(b=1).save()
    assert copy(session_cache, one) in (None, {"old": 1, "a": 1, "b": 1})
    assert open_session(key).data == {"old": 1, "a": 1, "b": 1}


@pytest.mark.parametrize("end", ["save", "flush"])
@pytest.mark.parametrize("age", [60, 0], ids=["copied", "not copied"])
def test_a_slow_reader_restores_nothing_old(
    session_cache: NatsCache,
    open_session: OpenSession,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    age: int,
) -> None:
    """Another request changes the session after the reader has read its row."""
    one = open_session().set(cart=1).save()
    cache_key = one.store.cache_key
    session_cache.delete(cache_key)
    reader = open_session(one.key)
    read_row = reader.store._get_session_from_db

    def read_slowly() -> Any:
        row = read_row()
        settings.SESSION_COPY_AGE = age
        Request(row.session_key).set(cart=2).call(end)
        return row

    monkeypatch.setattr(reader.store, "_get_session_from_db", read_slowly)
    assert reader.data == {"cart": 1}
    assert session_cache.get_with_revision(cache_key)[0] in (None, {"cart": 2})


# Transactions --------------------------------------------------------------------------------


def test_a_save_in_a_transaction_leaves_no_copy(session_cache: NatsCache) -> None:
    one = Request().set(user=1).save()
    with transaction.atomic():
        one.set(user=2).save()
        assert copy(session_cache, one) is None
        session_cache.set(one.store.cache_key, {"user": 1})  # as by another request's load
    assert copy(session_cache, one) is None
    assert Request(one.key).data == {"user": 2}


def test_a_save_that_is_rolled_back_leaves_no_copy_of_it(session_cache: NatsCache) -> None:
    one = Request().set(user=1).save()
    with transaction.atomic():
        one.set(user=2).save()
        transaction.set_rollback(True)
    assert Request(one.key).data == {"user": 1}


@pytest.mark.parametrize("ending", ["delete", "cycle_key"])
def test_a_session_that_ends_in_a_transaction_leaves_no_copy(
    session_cache: NatsCache, ending: str
) -> None:
    one = Request().set(user=1).save()
    key = one.store.cache_key
    with transaction.atomic():
        one.call(ending)
        session_cache.set(key, {"user": 1})
    assert session_cache.get_with_revision(key)[0] is None
    assert Session.objects.filter(session_key=key).count() == 0


def test_a_load_in_a_transaction_makes_no_copy(session_cache: NatsCache) -> None:
    """The row may be one that is rolled back, or one of a snapshot that is older than the copy."""
    one = Request().set(user=1).save()
    with transaction.atomic():
        one.set(user=2).save()
        assert Request(one.key).data == {"user": 2}
        assert copy(session_cache, one) is None
        transaction.set_rollback(True)
    assert Request(one.key).data == {"user": 1}
    assert copy(session_cache, one) == {"user": 1}


class ReplicaRouter:
    """Reads from a database that lags behind, as a replica may."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_row_of_a_replica_is_not_copied(session_cache: NatsCache, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [ReplicaRouter()]
    one = Request().set(user=1).save()
    row = Session.objects.using("default").get(session_key=one.key)
    row.save(using="other")
    one.set(user=2).save()
    session_cache.delete(one.store.cache_key)
    assert Request(one.key).data == {"user": 1}
    assert copy(session_cache, one) is None
