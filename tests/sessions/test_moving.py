"""Sessions that Django's engines have stored, and that Django's engines read."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured

from django_nats.cache import NatsCache
from tests.cache.conftest import plant
from tests.conftest import MakeCache
from tests.support.sessions import (
    DJANGO_CACHE,
    DJANGO_CACHED_DB,
    ENGINES,
    SESSIONS,
    SESSIONS_DB,
    Request,
)

pytestmark = pytest.mark.django_db(transaction=True)
PAIRS = [(SESSIONS, DJANGO_CACHE), (SESSIONS_DB, DJANGO_CACHED_DB)]


@pytest.mark.parametrize(("before", "after"), [*PAIRS, *(pair[::-1] for pair in PAIRS)])
def test_a_session_survives_a_change_of_the_engine(
    session_cache: NatsCache, settings: Any, before: str, after: str
) -> None:
    settings.SESSION_ENGINE = before
    key = Request().set(user=1, cart=("book", 2.5)).save().key
    settings.SESSION_ENGINE = after
    moved = Request(key)
    assert list(moved.data["cart"]) == ["book", 2.5]
    moved.set(language="en").save()
    settings.SESSION_ENGINE = before
    assert Request(key).data.keys() == {"user", "cart", "language"}


def test_each_row_is_one_that_django_decodes(session_cache: NatsCache, settings: Any) -> None:
    settings.SESSION_ENGINE = SESSIONS_DB
    key = Request().set(user=1).save().key
    assert Session.objects.get(session_key=key).get_decoded() == {"user": 1}


def test_values_need_no_json_where_the_cache_pickles(
    session_cache: NatsCache, settings: Any
) -> None:
    settings.SESSION_ENGINE = SESSIONS
    key = Request().set(seen={1, 2}, pair=(1, 2)).save().key
    assert Request(key).data == {"seen": {1, 2}, "pair": (1, 2)}


@pytest.mark.parametrize("payload", [b"\x80nonsense", b"5", b""])
def test_a_value_that_is_no_session_counts_as_missing(
    use_cache: MakeCache, settings: Any, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    settings.SESSION_ENGINE = SESSIONS
    cache = use_cache()
    request = Request().set(user=1).save()
    plant(cache, request.store.cache_key, payload, None if payload == b"5" else "pickle")
    again = Request(request.key)
    assert (again.data, again.key) == ({}, None)
    assert request.key not in caplog.text


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cookie_that_is_no_session_key_gives_an_empty_session(
    use_cache: MakeCache, settings: Any, engine: str
) -> None:
    settings.SESSION_ENGINE = engine
    use_cache()
    for key in ("x" * 9000, "with blanks and ü", "*.>:=" * 3):
        request = Request(key)
        assert (request.data, request.key) == ({}, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_backend_is_an_error_that_names_the_setting(settings: Any, engine: str) -> None:
    settings.SESSION_ENGINE = engine
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(ImproperlyConfigured) as raised:
        Request()
    for name in (engine, 'CACHES["default"]', "LocMemCache", "SESSION_CACHE_ALIAS"):
        assert name in str(raised.value)
