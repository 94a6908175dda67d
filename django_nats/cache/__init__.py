"""The cache backend: ``"BACKEND": "django_nats.cache.NatsCache"``."""

from __future__ import annotations

from time import monotonic
from typing import cast

from django.conf import settings
from django.core.cache import caches
from django.utils.module_loading import import_string

from ..client.steps import Steps
from ..client.twins import twins
from ..stats import CacheStats
from .revisions import Revisions
from .timeouts import Timeouts
from .values import Values
from .watching import Watching

__all__ = ["NatsCache", "nats_aliases", "nats_caches"]


class NatsCache(Values, Timeouts, Revisions, Watching):
    """A Django cache on a NATS key-value bucket.

    Every method has an async twin, native and not a thread's, with an ``a`` before its name.
    Operations raise the errors of ``django_nats.exceptions``; with FAIL_OPEN, while the server is
    away, they return what their docstrings name instead.
    """

    def _stats(self) -> Steps[CacheStats]:
        """The state of connection and bucket, and this process's hits and misses.

        FAIL_OPEN: all that is known without the server.
        """
        sent = monotonic()
        document = yield from self._or(self._bucket.open(), {"state": {}})
        return CacheStats(
            connected=self.session.connected,
            server=self.session.server,
            bucket=self._config.bucket.name,
            entries=document["state"].get("messages", 0),
            bytes=document["state"].get("bytes", 0),
            hits=self._bucket.hits,
            misses=self._bucket.misses,
            rtt=monotonic() - sent,
        )

    stats, astats = twins(_stats)


def nats_aliases() -> list[str]:
    """The aliases of CACHES that this package serves, by NatsCache or a subclass of it."""
    found = []
    for alias, entry in settings.CACHES.items():
        try:
            backend = import_string(entry.get("BACKEND", ""))
        except ImportError:
            continue  # Django itself reports this one
        if isinstance(backend, type) and issubclass(backend, NatsCache):
            found.append(alias)
    return found


def nats_caches() -> dict[str, NatsCache]:
    """The caches behind those aliases. Raises ImproperlyConfigured."""
    return {alias: cast(NatsCache, caches[alias]) for alias in nats_aliases()}
