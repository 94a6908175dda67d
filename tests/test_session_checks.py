"""The checks of SESSION_ENGINE and SESSION_CACHE_ALIAS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.sessions import DJANGO_CACHE, DJANGO_CACHED_DB, ENGINES, SESSIONS, SESSIONS_DB
from tests.test_checks import entry, found

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
LOGS_OUT = "logs out every visitor who opens a page while the server is away"


@pytest.mark.parametrize(
    ("options", "risk"),
    [
        ({"STORAGE": "memory"}, "memory"),
        ({"STORAGE": "file", "MAX_BYTES": "8MiB"}, "evicts"),
        ({"STORAGE": "file", "MAX_ENTRIES": 1000}, "evicts"),
    ],
)
@pytest.mark.parametrize("engine", [DJANGO_CACHE, SESSIONS])
def test_sessions_that_a_cache_may_lose_are_a_warning(
    settings: Any, engine: str, options: dict[str, Any], risk: str
) -> None:
    settings.CACHES = {"default": entry(BUCKET="pages"), "sessions": entry(**options)}
    settings.SESSION_CACHE_ALIAS = "sessions"
    settings.SESSION_ENGINE = engine

    messages = found()

    assert messages.keys() == {"W003"}
    assert 'CACHES["sessions"]' in messages["W003"].msg
    assert risk in messages["W003"].msg
    assert (LOGS_OUT in messages["W003"].msg) == (engine == DJANGO_CACHE)
    assert SESSIONS_DB in str(messages["W003"].hint)


@pytest.mark.parametrize(
    "options", [{}, {"EVICT": False, "MAX_BYTES": "8MiB"}, {"FAIL_OPEN": True}]
)
def test_djangos_cache_engine_is_a_warning_on_any_cache(
    settings: Any, options: dict[str, Any]
) -> None:
    settings.CACHES = {"default": entry(STORAGE="file", **options)}
    settings.SESSION_ENGINE = DJANGO_CACHE

    messages = found()

    assert messages.keys() == {"W003"}
    assert LOGS_OUT in messages["W003"].msg
    assert f'"{SESSIONS}"' in str(messages["W003"].hint)


def test_sessions_in_the_database_whose_cache_does_not_fail_open_are_a_warning(
    settings: Any,
) -> None:
    settings.CACHES = {"default": entry(BUCKET="pages"), "sessions": entry()}
    settings.SESSION_CACHE_ALIAS = "sessions"
    settings.SESSION_ENGINE = DJANGO_CACHED_DB

    messages = found()

    assert messages.keys() == {"W011"}
    assert 'CACHES["sessions"]' in messages["W011"].msg
    assert "FAIL_OPEN" in str(messages["W011"].hint)
    assert SESSIONS_DB in str(messages["W011"].hint)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        (SESSIONS, {"STORAGE": "file"}),
        (SESSIONS, {"STORAGE": "file", "EVICT": False, "MAX_BYTES": "8MiB"}),
        (SESSIONS_DB, {}),
        (SESSIONS_DB, {"MAX_BYTES": "8MiB"}),
        (DJANGO_CACHED_DB, {"FAIL_OPEN": True}),
        (DJANGO_CACHED_DB, {"STORAGE": "file", "FAIL_OPEN": True}),
        ("django.contrib.sessions.backends.db", {}),
        ("django.contrib.sessions.backends.signed_cookies", {}),
    ],
)
def test_safe_sessions_get_no_warning(settings: Any, engine: str, options: dict[str, Any]) -> None:
    settings.CACHES = {"default": entry(**options)}
    settings.SESSION_ENGINE = engine

    assert found() == {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("alias", "problem"), [("pages", "is not a NatsCache"), ("misspelt", "is missing")]
)
def test_an_engine_on_another_backend_is_an_error(
    settings: Any, engine: str, alias: str, problem: str
) -> None:
    settings.CACHES = {"default": entry(STORAGE="file"), "pages": LOCMEM}
    settings.SESSION_CACHE_ALIAS = alias
    settings.SESSION_ENGINE = engine

    messages = found()

    assert messages.keys() == {"E013"}
    assert problem in messages["E013"].msg
    for name in (engine, f'CACHES["{alias}"]', "SESSION_CACHE_ALIAS"):
        assert name in messages["E013"].msg


def test_engines_of_django_may_have_any_backend(settings: Any) -> None:
    settings.CACHES = {"default": LOCMEM}
    settings.SESSION_ENGINE = DJANGO_CACHE

    assert found() == {}
