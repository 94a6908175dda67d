"""Django's own tests of sessions, with Django's engines on NATS and with those of this package.

Like suite.py, it can be imported only by ``python -m tests.django_suite``.
"""

from __future__ import annotations

from typing import Any

from django.test import TransactionTestCase, override_settings
from sessions_tests import tests as sessions
from sessions_tests.models import SessionStore as CustomStore

from django_nats.sessions import SessionStore as NatsStore
from django_nats.sessions_db import SessionStore as NatsDBStore

from .excusing import skip_excused

_BACKENDS = "django.contrib.sessions.backends"

# Django's engines ------------------------------------------------------------------------------


class CacheSessionTests(sessions.CacheSessionTests):
    """Sessions in the cache."""


class CachedDBSessionTests(sessions.CacheDBSessionTests):
    """Sessions in the database, read through the cache."""


class CachedDBSessionWithTimeZoneTests(sessions.CacheDBSessionWithTimeZoneTests):
    """Sessions in the database, read through the cache, with USE_TZ."""


@override_settings(SESSION_ENGINE=f"{_BACKENDS}.cache")
class CacheSessionMiddlewareTests(sessions.SessionMiddlewareTests):
    """Views with sessions in the cache."""


@override_settings(SESSION_ENGINE=f"{_BACKENDS}.cached_db")
class CachedDBSessionMiddlewareTests(sessions.SessionMiddlewareTests):
    """Views with cached_db sessions."""


# django_nats.sessions --------------------------------------------------------------------------


class NatsSessionTests(sessions.CacheSessionTests):
    """Sessions in the cache that lose no update."""

    backend = NatsStore


@override_settings(SESSION_ENGINE="django_nats.sessions")
class NatsSessionMiddlewareTests(sessions.SessionMiddlewareTests):
    """Views with sessions in the cache that lose no update."""


# django_nats.sessions_db -----------------------------------------------------------------------


class NatsDBSessionTests(sessions.CacheDBSessionTests):
    """Sessions in the database, read through the cache, that lose no update."""

    backend = NatsDBStore


@override_settings(USE_TZ=True)
class NatsDBSessionWithTimeZoneTests(NatsDBSessionTests):
    """The same with USE_TZ."""


class NatsDBSessionWithoutTransactionTests(sessions.SessionTestsMixin, TransactionTestCase):
    """The same outside of a transaction, where saves make copies."""

    backend = NatsDBStore
    test_exists_searches_cache_first = sessions.CacheDBSessionTests.test_exists_searches_cache_first
    test_load_overlong_key = sessions.CacheDBSessionTests.test_load_overlong_key


class SessionStore(NatsDBStore, CustomStore):
    """An engine with a model of its own. Rows are signed with the name of the class."""


class CustomNatsDBSessionTests(sessions.CustomDatabaseSessionTests):
    """Sessions in a model with a further column."""

    backend = SessionStore


class NatsDBRowTests(sessions.DatabaseSessionTests):
    """The rows of sessions."""

    backend = NatsDBStore
    session_engine = "django_nats.sessions_db"


@override_settings(SESSION_ENGINE="django_nats.sessions_db")
class NatsDBSessionMiddlewareTests(sessions.SessionMiddlewareTests):
    """Views with sessions in the database, read through the cache, that lose no update."""


_NO_ROW = "looks for the session in the database, but it is stored only in the cache"
_IN_TRANSACTION = (
    "runs in a transaction, in which saves make no copies: "
    "NatsDBSessionWithoutTransactionTests has this test outside of one"
)
_NEEDS_NATS = "the cache is not a NatsCache, which this engine needs; refused copies have own tests"

EXCUSED: dict[tuple[type[Any], str], str] = {
    (CacheSessionMiddlewareTests, "test_empty_session_saved"): _NO_ROW,
    (NatsSessionMiddlewareTests, "test_empty_session_saved"): _NO_ROW,
    (NatsDBSessionTests, "test_exists_searches_cache_first"): _IN_TRANSACTION,
    (NatsDBSessionTests, "test_cache_set_failure_non_fatal"): _NEEDS_NATS,
    (NatsDBSessionTests, "test_cache_async_set_failure_non_fatal"): _NEEDS_NATS,
}
"""The tests that are skipped, and why."""

skip_excused(EXCUSED)
