"""How long sessions are stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.models import Session
from django.utils import timezone

from django_nats.cache import NatsCache
from tests.support.sessions import SESSIONS, OpenSession, Request

_SLACK_S = 600


def lifetime(engine: str, cache: NatsCache, request: Request) -> float:
    """Return the seconds for which a session is still stored."""
    if engine == SESSIONS:
        return float(cache.ttl(request.store.cache_key) or 0)
    row = Session.objects.get(session_key=request.key)
    return (row.expire_date - timezone.now()).total_seconds()


def shorten(engine: str, cache: NatsCache, request: Request) -> None:
    """Store a session for an hour from now, with the same data."""
    if engine == SESSIONS:
        cache.expire(request.store.cache_key, 3600)
    else:
        hour = timezone.now() + timedelta(hours=1)
        Session.objects.filter(session_key=request.key).update(expire_date=hour)


def is_about(seconds: float, expected: float) -> bool:
    return expected - _SLACK_S < seconds <= expected


@pytest.mark.parametrize("mine", [True, False], ids=["changed here", "changed by another"])
def test_the_lifetime_follows_from_the_merged_data(
    engine: str, open_session: OpenSession, session_cache: NatsCache, mine: bool
) -> None:
    key = open_session().set(old=1).save().key
    one, another = open_session(key).load(), open_session(key).load()
    (another if mine else one).call("set_expiry", 7200)
    one.set(a=1).save()
    another.set(b=2).save()
    assert is_about(lifetime(engine, session_cache, another), 7200)


def test_a_lifetime_that_another_request_has_removed_stays_removed(
    engine: str, open_session: OpenSession, session_cache: NatsCache, settings: Any
) -> None:
    new = open_session().set(old=1)
    new.call("set_expiry", 7200)
    new.save()
    one, another = open_session(new.key).load(), open_session(new.key).load()
    one.call("set_expiry", None)
    one.save()
    another.set(b=2).save()
    age = settings.SESSION_COOKIE_AGE
    assert is_about(lifetime(engine, session_cache, another), age)


def test_a_save_without_a_change_renews_the_lifetime(
    engine: str, open_session: OpenSession, session_cache: NatsCache, settings: Any
) -> None:
    one = open_session().set(old=1).save()
    another = open_session(one.key).load()
    shorten(engine, session_cache, one)
    assert is_about(lifetime(engine, session_cache, one), 3600)
    another.save()
    age = settings.SESSION_COOKIE_AGE
    assert is_about(lifetime(engine, session_cache, one), age)
    assert open_session(one.key).data == {"old": 1}


def test_a_session_that_is_saved_with_a_past_expiry_is_gone(open_session: OpenSession) -> None:
    one = open_session().set(old=1).save()
    another = open_session(one.key).load()
    one.set(new=2).call("set_expiry", timedelta(seconds=-10))
    one.save()
    assert open_session(one.key).data == {}
    if one.store.__module__ == SESSIONS:  # as in Django, the row stays until clearsessions
        with pytest.raises(UpdateError):
            another.set(b=1).save()
        with pytest.raises(UpdateError):
            one.save()


def test_a_past_expiry_ends_a_session_that_another_request_has_changed(
    open_session: OpenSession,
) -> None:
    key = open_session().set(old=1).save().key
    one, another = open_session(key).load(), open_session(key).load()
    one.set(a=1).save()
    another.call("set_expiry", timedelta(seconds=-10))
    another.save()
    assert open_session(key).data == {}
