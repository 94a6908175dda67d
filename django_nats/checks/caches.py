"""The system checks of CACHES."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured

from ..cache import NatsCache, nats_aliases
from ..conf.caches import CACHE_OPTIONS
from . import entries, feeds, streams


def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E001 if an alias cannot be configured. No server is asked."""
    yield from entries.configuration_errors(nats_aliases(), caches.__getitem__)


def check_binary(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E008 if an embedded server cannot be started, as there is no nats-server."""
    found = _valid_caches().items()
    embedded = [alias for alias, cache in found if cache.config.connection.embedded is not None]
    yield from entries.missing_binary("CACHES", embedded)


def check_misplaced_options(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W007 if an option stands beside OPTIONS, where Django silently ignores it."""
    for alias in nats_aliases():
        if misplaced := sorted(CACHE_OPTIONS & settings.CACHES[alias].keys()):
            yield Warning(
                f'CACHES["{alias}"] has {", ".join(misplaced)} beside OPTIONS, where nothing '
                "reads it.",
                hint="Move it into OPTIONS.",
                id="django_nats.W007",
            )


def check_credentials(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W001 if a URL holds credentials."""
    yield from entries.credentials_in_urls(
        "CACHES", settings.CACHES, nats_aliases(), "into OPTIONS"
    )


def check_shared_buckets(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E002 or W002 if aliases share a bucket."""
    for shared in streams.by_stream(streams.of_caches(_valid_caches())):
        errors = list(
            streams.check_agreement(
                shared, "Give each a BUCKET of its own in OPTIONS, or the same options."
            )
        )
        yield from errors
        if len(shared) > 1 and not errors:
            yield Warning(
                f"{streams.entries(shared)} share the {shared[0].title}: clear() on one empties "
                "all of them.",
                hint="Give each a BUCKET of its own in OPTIONS. KEY_PREFIX and VERSION keep their "
                "keys apart, but clear() empties the whole bucket.",
                id="django_nats.W002",
            )


def check_memory(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W004 if a bucket in memory has no limit."""
    for alias, cache in caches_on_servers().items():
        bucket = cache.config.bucket
        if bucket.storage == "memory" and bucket.max_bytes is None and bucket.max_entries is None:
            yield Warning(
                f'The bucket of CACHES["{alias}"] is in the server\'s memory, and may fill all '
                "of it.",
                hint='Set MAX_BYTES in OPTIONS, for example "256MiB".',
                id="django_nats.W004",
            )


def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W005 or W006 for buckets that differ from settings, or cannot be compared."""
    for shared in streams.by_stream(streams.of_caches(caches_on_servers())):
        yield from streams.check_differences(shared)


def check_feeds(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W010 if the server refuses the change feed of a near cache."""
    yield from feeds.check_feeds(caches_on_servers())


def _valid_caches() -> dict[str, NatsCache]:
    found = {}
    for alias in nats_aliases():
        try:
            found[alias] = cast(NatsCache, caches[alias])
        except ImproperlyConfigured:
            continue  # E001
    return found


def caches_on_servers() -> dict[str, NatsCache]:
    """Return the valid caches, without those on the development server."""
    return {
        alias: cache
        for alias, cache in _valid_caches().items()
        if cache.config.connection.embedded is None
    }


CHECKS = (
    check_configuration,
    check_binary,
    check_misplaced_options,
    check_credentials,
    check_shared_buckets,
)
DEPLOY = (check_memory, check_servers, check_feeds)
"""The checks that only ``check --deploy`` runs."""
