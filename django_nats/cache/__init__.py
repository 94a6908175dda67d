"""The cache backend: ``"BACKEND": "django_nats.cache.NatsCache"``.

``NatsCache`` is composed of mixins. Each mixin inherits from ``Core`` alone, and holds the
operations of one concept:

- ``core.py``: settings, keys, encoding and decoding of values, timeouts
- ``reading.py``: ``get``, ``get_many``, ``has_key``
- ``writing.py``: ``set``, ``set_many``, ``add``, ``get_or_set``
- ``integers.py``: ``incr``, ``decr``
- ``versions.py``: ``incr_version``, ``decr_version``
- ``deleting.py``: ``delete``, ``getdel``, ``delete_many``, ``clear``
- ``expiry.py``: ``touch``, ``expire``, ``persist``, ``ttl`` and their variants
- ``revisions.py``: ``get_with_revision``, ``update``
- ``listing.py``: ``keys``, ``iter_keys``, ``delete_pattern``
- ``watching.py``: ``watch``

Two modules hold functions that several mixins share:

- ``unstored.py``: what to do about values that could not be stored
- ``made_patterns.py``: patterns of users' keys as patterns of the keys in the bucket
"""

from __future__ import annotations

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..client.protocol.steps import Steps
from ..realtime import monotonic
from ..stats import CacheStats
from .deleting import Deleting
from .expiry import Expiry
from .integers import Integers
from .listing import Listing
from .reading import Reading
from .revisions import Revisions
from .versions import Versions
from .watching import Watching
from .writing import Writing

__all__ = ["NatsCache", "nats_aliases", "nats_cache", "nats_caches"]


class NatsCache(
    Reading, Writing, Integers, Versions, Deleting, Expiry, Revisions, Listing, Watching
):
    """A Django cache that stores its values in a NATS key-value bucket.

    Every method has an async version with an ``a`` before its name. It is native: it runs on the
    event loop of the caller, not in a thread.

    Operations raise the errors of ``django_nats.exceptions``. With FAIL_OPEN, while the server is
    away, they return the result that their docstrings name after "FAIL_OPEN:". If that is None, the
    return type says so, whether FAIL_OPEN is on or off: ``incr()`` returns ``int | None``.
    """

    def stats(self) -> CacheStats:
        """Return the state of the connection and the bucket, and this process's hits and misses.

        FAIL_OPEN: what is known without the server.
        """
        return self._run(self._stats())

    async def astats(self) -> CacheStats:
        """Async version of stats()."""
        return await self._arun(self._stats())

    def _stats(self) -> Steps[CacheStats]:
        sent = monotonic()
        document = yield from self._result_or(self._bucket.stream.opening.open(), None)
        rtt = None if document is None else monotonic() - sent
        state = {} if document is None else document["state"]
        return CacheStats(
            connected=self.session.connected,
            server=self.session.server,
            bucket=self._config.bucket.name,
            entries=state.get("messages", 0),
            bytes=state.get("bytes", 0),
            hits=self._bucket.hits,
            misses=self._bucket.misses,
            rtt=rtt,
        )


def nats_cache(alias: str = DEFAULT_CACHE_ALIAS) -> NatsCache:
    """Return a cache of CACHES, as ``caches[alias]`` does. Type checkers know its methods.

    Raises ImproperlyConfigured if the alias has another backend, and InvalidCacheBackendError if
    CACHES has no such alias.
    """
    found = caches[alias]
    if not isinstance(found, NatsCache):
        raise ImproperlyConfigured(
            f'CACHES["{alias}"] is a {type(found).__name__}, not a NatsCache. Name an alias whose '
            'BACKEND is "django_nats.cache.NatsCache".'
        )
    return found


def nats_aliases() -> list[str]:
    """Return the aliases of CACHES whose backend is NatsCache or a subclass of it."""
    found = []
    for alias, entry in settings.CACHES.items():
        try:
            backend = import_string(entry.get("BACKEND", ""))
        except ImportError:
            continue  # Django itself reports this error
        if isinstance(backend, type) and issubclass(backend, NatsCache):
            found.append(alias)
    return found


def nats_caches() -> dict[str, NatsCache]:
    """Return the caches of those aliases, by alias.

    Raises ImproperlyConfigured if their settings are wrong.
    """
    return {alias: nats_cache(alias) for alias in nats_aliases()}
