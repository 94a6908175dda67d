"""The checks of CACHES."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ..cache import NatsCache, nats_aliases
from ..conf.caches import CACHE_OPTIONS
from . import feeds, streams


def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """E001: every alias can be made; nothing is opened by that."""
    for alias in nats_aliases():
        try:
            caches[alias]
        except ImproperlyConfigured as error:
            yield Error(str(error), id="django_nats.E001")


def check_places(**kwargs: Any) -> Iterable[CheckMessage]:
    """W007: options are in OPTIONS; Django drops what is beside it without a word."""
    for alias in nats_aliases():
        if misplaced := sorted(CACHE_OPTIONS & settings.CACHES[alias].keys()):
            yield Warning(
                f'CACHES["{alias}"] has {", ".join(misplaced)} beside OPTIONS, where nothing '
                "reads it.",
                hint="Move it into OPTIONS.",
                id="django_nats.W007",
            )


def check_credentials(**kwargs: Any) -> Iterable[CheckMessage]:
    """W001: no credentials in URLs."""
    for alias in nats_aliases():
        # A string or a list of them, "@" has no other place in it.
        if "@" in str(settings.CACHES[alias].get("LOCATION", "")):
            yield Warning(
                f'The LOCATION of CACHES["{alias}"] holds credentials, and Django\'s debug page '
                "and error mails show it.",
                hint='Put them into OPTIONS, as "USER" and "PASSWORD" or "TOKEN".',
                id="django_nats.W001",
            )


def check_shared_buckets(**kwargs: Any) -> Iterable[CheckMessage]:
    """E002, W002: a bucket for each alias, or at least the same options."""
    for shared in streams.by_stream(streams.of_caches(_sound_caches())):
        wrong = list(
            streams.disagreed(
                shared, "Give each a BUCKET of its own in OPTIONS, or the same options."
            )
        )
        yield from wrong
        if len(shared) > 1 and not wrong:
            yield Warning(
                f"{streams.entries(shared)} share the {shared[0].title}: clear() on one empties "
                "all of them.",
                hint="Give each a BUCKET of its own in OPTIONS. KEY_PREFIX and VERSION keep their "
                "keys apart, but clear() is for a whole bucket.",
                id="django_nats.W002",
            )


def check_sessions(**kwargs: Any) -> Iterable[CheckMessage]:
    """W003: sessions that must survive are in the database, too."""
    cache = _caches_of_servers().get(settings.SESSION_CACHE_ALIAS)
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.cache" or cache is None:
        return
    config, bucket = cache._config, cache._config.bucket
    risks = []
    if bucket.storage == "memory":
        risks.append("is in the server's memory")
    if bucket.evict and (bucket.max_bytes is not None or bucket.max_entries is not None):
        risks.append("evicts what is oldest when it is full")
    if config.fail_open:
        risks.append("fails open, which logs everyone out while the server is away")
    if risks:
        yield Warning(
            f'Sessions are kept in CACHES["{settings.SESSION_CACHE_ALIAS}"] only, and that may '
            f"lose them: it {', '.join(risks)}.",
            hint='Set SESSION_ENGINE to "django.contrib.sessions.backends.cached_db", or silence '
            "this if losing sessions is all right.",
            id="django_nats.W003",
        )


def check_memory(**kwargs: Any) -> Iterable[CheckMessage]:
    """W004: what is in memory has a limit."""
    for alias, cache in _caches_of_servers().items():
        bucket = cache._config.bucket
        if bucket.storage == "memory" and bucket.max_bytes is None and bucket.max_entries is None:
            yield Warning(
                f'The bucket of CACHES["{alias}"] is in the server\'s memory, and nothing keeps '
                "it from filling all of that.",
                hint='Set MAX_BYTES in OPTIONS, for example "256MiB".',
                id="django_nats.W004",
            )


def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """W005, W006: the buckets are what settings say."""
    for shared in streams.by_stream(streams.of_caches(_caches_of_servers())):
        yield from streams.compared(shared)


def check_feeds(**kwargs: Any) -> Iterable[CheckMessage]:
    """W010: what NEAR_CACHE needs is permitted."""
    yield from feeds.refused(_caches_of_servers())


def _sound_caches() -> dict[str, NatsCache]:
    found = {}
    for alias in nats_aliases():
        try:
            found[alias] = cast(NatsCache, caches[alias])
        except ImproperlyConfigured:
            continue  # E001
    return found


def _caches_of_servers() -> dict[str, NatsCache]:
    """The sound caches, but for those on the development server."""
    return {
        alias: cache
        for alias, cache in _sound_caches().items()
        if cache._config.connection.embedded is None
    }


CHECKS = (
    check_configuration,
    check_places,
    check_credentials,
    check_shared_buckets,
    check_sessions,
)
DEPLOY = (check_memory, check_servers, check_feeds)
"""Those that only ``check --deploy`` runs."""
