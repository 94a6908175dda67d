"""The system checks of SESSION_ENGINE and SESSION_CACHE_ALIAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from ..cache import NatsCache, nats_aliases
from .caches import caches_on_servers

_DJANGO = "django.contrib.sessions.backends"
_SESSIONS, _SESSIONS_DB = "django_nats.sessions", "django_nats.sessions_db"


def check_backend(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E013 if an engine of this package is to use the cache of another backend."""
    alias = settings.SESSION_CACHE_ALIAS
    if settings.SESSION_ENGINE in (_SESSIONS, _SESSIONS_DB) and alias not in nats_aliases():
        problem = "is not a NatsCache" if alias in settings.CACHES else "is missing"
        yield Error(
            f'SESSION_ENGINE is "{settings.SESSION_ENGINE}", and CACHES["{alias}"], which '
            f"SESSION_CACHE_ALIAS names, {problem}.",
            hint="Set SESSION_CACHE_ALIAS to an alias whose BACKEND is "
            '"django_nats.cache.NatsCache".',
            id="django_nats.E013",
        )


def check_risks(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W003 if sessions may be lost, and W011 if they cannot do without their cache."""
    cache = caches_on_servers().get(settings.SESSION_CACHE_ALIAS)
    check = _CHECKS.get(settings.SESSION_ENGINE)
    if cache is not None and check is not None:
        yield from check(cache, f'CACHES["{settings.SESSION_CACHE_ALIAS}"]')


def _check_djangos_cache(cache: NatsCache, where: str) -> Iterable[CheckMessage]:
    # Django takes an error of the cache for an empty session, and deletes the cookie.
    risks = ["logs out every visitor who opens a page while the server is away"]
    yield _may_lose(
        where,
        [*risks, *_losses(cache)],
        f'Set SESSION_ENGINE to "{_SESSIONS}", which logs nobody out, or to "{_SESSIONS_DB}", '
        "which keeps sessions in the database, too. Or silence this check if sessions may be lost.",
    )


def _check_sessions(cache: NatsCache, where: str) -> Iterable[CheckMessage]:
    if losses := _losses(cache):
        yield _may_lose(
            where,
            losses,
            'Set STORAGE to "file" and EVICT to False in the OPTIONS of the cache, or '
            f'SESSION_ENGINE to "{_SESSIONS_DB}". Or silence this check if sessions may be lost.',
        )


def _check_cached_db(cache: NatsCache, where: str) -> Iterable[CheckMessage]:
    if not cache.config.fail_open:
        yield Warning(
            f"Pages that use a session fail while the server of {where} is away, although the "
            "database has the session, too.",
            hint=f'Set SESSION_ENGINE to "{_SESSIONS_DB}", or FAIL_OPEN to True in the OPTIONS of '
            "the cache: the database then serves alone.",
            id="django_nats.W011",
        )


_CHECKS: dict[str, Callable[[NatsCache, str], Iterable[CheckMessage]]] = {
    f"{_DJANGO}.cache": _check_djangos_cache,
    f"{_DJANGO}.cached_db": _check_cached_db,
    _SESSIONS: _check_sessions,
}


def _may_lose(where: str, risks: list[str], hint: str) -> Warning:
    return Warning(
        f"Sessions are kept in {where} only, and that may lose them: it {', '.join(risks)}.",
        hint=hint,
        id="django_nats.W003",
    )


def _losses(cache: NatsCache) -> list[str]:
    bucket = cache.config.bucket
    found = []
    if bucket.storage == "memory":
        found.append("is in the server's memory")
    if bucket.evict and (bucket.max_bytes is not None or bucket.max_entries is not None):
        found.append("evicts its oldest entries when it is full")
    return found


CHECKS = (check_backend, check_risks)
DEPLOY = ()
"""The checks that only ``check --deploy`` runs."""
