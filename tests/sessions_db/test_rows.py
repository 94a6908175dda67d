"""The rows of sessions, and errors of the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError

from django_nats.cache import NatsCache
from tests.support.sessions import OpenSession


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


def test_no_row_is_read_or_changed_for_a_session_without_a_key(
    session_cache: NatsCache, open_session: OpenSession, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        request = open_session()
        assert request.call("load") == {}
        request.call("delete")
        assert not request.call("exists", "")
