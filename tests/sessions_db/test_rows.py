"""The rows of sessions, and errors of the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, transaction

from django_nats.cache import NatsCache
from tests.support.sessions import OpenSession, Request


def test_an_error_of_the_database_is_not_taken_for_a_deleted_session(
    session_cache: NatsCache, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = open_session().set(user=1).save()

    def fail(*args: Any) -> None:
        raise OperationalError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(request.store, "_locked_row", fail)
        with pytest.raises(OperationalError):
            request.set(user=2).save()
    assert open_session(request.key).data == {"user": 1}


def test_a_save_keeps_what_was_changed_in_the_row_by_other_means(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    request = open_session().set(user=1).save()
    late = open_session(request.key).load()
    row = Session.objects.get(session_key=request.key)
    Session.objects.save(request.key, {"user": 1, "imported": 2}, row.expire_date)
    late.set(cart=1).save()
    assert open_session(request.key).data == {"user": 1, "imported": 2, "cart": 1}


def test_a_corrupted_row_is_an_empty_session(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    request = open_session().set(user=1).save()
    session_cache.clear()
    Session.objects.filter(session_key=request.key).update(session_data="nonsense")
    again = open_session(request.key)
    assert again.data == {}
    again.set(user=2).save()
    assert open_session(request.key).data == {"user": 2}


def test_a_row_that_cannot_be_read_any_more_is_replaced_by_what_was_loaded(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    request = open_session().set(user=1).save()
    late = open_session(request.key).load()
    Session.objects.filter(session_key=request.key).update(session_data="of another release")
    late.set(cart=1).save()
    assert open_session(request.key).data == {"user": 1, "cart": 1}


def test_a_row_that_was_emptied_is_merged_as_empty(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    request = open_session().set(user=1).save()
    late = open_session(request.key).load()
    empty = request.store.encode({})
    Session.objects.filter(session_key=request.key).update(session_data=empty)
    late.set(cart=1).save()
    assert open_session(request.key).data == {"cart": 1}


def test_no_row_is_read_or_changed_for_a_session_without_a_key(
    session_cache: NatsCache, open_session: OpenSession, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        request = open_session()
        assert request.call("load") == {}
        request.call("delete")
        assert not request.call("exists", "")


def test_a_change_whose_save_was_rolled_back_is_saved_again(
    session_cache: NatsCache, open_session: OpenSession
) -> None:
    request = Request(open_session().set(old=1, gone=1).save().key)
    with transaction.atomic():
        request.set(cart=1).drop("gone").save()
        transaction.set_rollback(True)
    open_session(request.key).set(theirs=1).save()
    request.set(other=1).save()
    assert Request(request.key).data == {"old": 1, "cart": 1, "other": 1, "theirs": 1}


def test_a_change_whose_savepoint_was_rolled_back_is_saved_again(session_cache: NatsCache) -> None:
    request = Request(Request().set(old=1).save().key)
    with transaction.atomic():
        with transaction.atomic():
            request.set(cart=1).save()
            transaction.set_rollback(True)
        request.set(other=1).save()
    assert Request(request.key).data == {"old": 1, "cart": 1, "other": 1}


def test_a_change_whose_save_was_committed_is_not_made_again(session_cache: NatsCache) -> None:
    request = Request().set(cart=1).save()
    with transaction.atomic():
        request.set(cart=2).save()
        request.set(more=1).save()
    Request(request.key).set(cart=3).save()
    request.set(other=1).save()
    assert Request(request.key).data == {"cart": 3, "more": 1, "other": 1}


def test_a_session_created_in_a_transaction_may_be_saved_in_it(session_cache: NatsCache) -> None:
    request = Request(Request().set(cart=1).save().key).load()
    with transaction.atomic():
        request.call("cycle_key")
        request.set(user=1).drop("cart").save()
    Request(request.key).set(theirs=1).save()
    request.set(other=1).save()
    assert Request(request.key).data == {"user": 1, "theirs": 1, "other": 1}
