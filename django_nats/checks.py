"""System checks, registered by the app under Django's tag ``caches`` and the tag ``nats``.

======================  ========  ================================================================
id                      run by    what is wrong
======================  ========  ================================================================
``django_nats.E001``    check     An alias of CACHES cannot be configured. (Django's own caches
                                  checks meet the same error, and answer with a traceback;
                                  ``check --tag nats`` and ``manage.py nats`` show this one.)
``django_nats.E002``    check     Aliases share a bucket, but disagree on its options.
``django_nats.W001``    check     LOCATION holds credentials, which Django's debug page shows.
``django_nats.W002``    check     Aliases share a bucket: clear() on one empties the others.
``django_nats.W003``    check     Sessions live in nothing but a cache that may lose them.
``django_nats.W004``    --deploy  A bucket in memory has no limit.
``django_nats.W005``    --deploy  A bucket differs from settings.
``django_nats.W006``    --deploy  A server does not tell about its bucket.
``django_nats.W007``    check     An option is beside OPTIONS, where nothing reads it.
======================  ========  ================================================================

Only W005 and W006 ask the servers, and wait no longer than CONNECT_TIMEOUT and REQUEST_TIMEOUT
allow; all the others look at settings alone. LOCATION "embedded" is for development: W003 to W006
leave it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from .cache import NatsCache, nats_aliases
from .client import bridge
from .client.bucket import differences
from .conf import CACHE_OPTIONS
from .exceptions import NatsError

TAG = "nats"


@register(Tags.caches, TAG)
def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """E001: every alias can be made; nothing is opened by that."""
    for alias in nats_aliases():
        try:
            caches[alias]
        except ImproperlyConfigured as error:
            yield Error(str(error), id="django_nats.E001")


@register(Tags.caches, TAG)
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


@register(Tags.caches, TAG)
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


@register(Tags.caches, TAG)
def check_shared_buckets(**kwargs: Any) -> Iterable[CheckMessage]:
    """E002, W002: a bucket for each alias, or at least the same options."""
    for shared in by_bucket(_sound_caches()):
        if (problem := disagreement(shared)) is not None:
            yield Error(
                problem,
                hint="Give each a BUCKET of its own in OPTIONS, or the same options.",
                id="django_nats.E002",
            )
        elif len(shared) > 1:
            yield Warning(
                f"{_entries(shared)} share the bucket {_bucket_name(shared)}: clear() on one "
                "empties all of them.",
                hint="Give each a BUCKET of its own in OPTIONS. KEY_PREFIX and VERSION keep their "
                "keys apart, but clear() is for a whole bucket.",
                id="django_nats.W002",
            )


@register(Tags.caches, TAG)
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


@register(Tags.caches, TAG, deploy=True)
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


@register(Tags.caches, TAG, deploy=True)
def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """W005, W006: the buckets are what settings say. Asks the servers; changes nothing there."""
    for shared in by_bucket(_caches_of_servers()):
        cache = next(iter(shared.values()))
        bucket = cache._bucket
        try:
            with outages_unlogged():
                document = bridge.run(cache.session, bucket.info())
        except NatsError as error:
            yield Warning(
                f"The bucket {_bucket_name(shared)} of {_entries(shared)} could not be compared "
                f"with settings: {error}",
                id="django_nats.W006",
            )
            continue
        if document is None:
            continue  # made as settings say, on first use
        found = differences(bucket.config, document["config"], document["state"])
        if found:
            yield Warning(
                f"The bucket {_bucket_name(shared)} of {_entries(shared)} differs from settings: "
                f"{'; '.join(map(str, found))}.",
                hint="`manage.py nats setup` changes what can be changed without losing data.",
                id="django_nats.W005",
            )


@contextmanager
def outages_unlogged() -> Iterator[None]:
    """For those who report an outage in their own words: the log would only say it again."""
    logger = logging.getLogger("django_nats")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def by_bucket(caches: Mapping[str, NatsCache]) -> list[dict[str, NatsCache]]:
    """The caches by alias, those together that keep their values in one bucket."""
    shared: dict[object, dict[str, NatsCache]] = {}
    for alias, cache in caches.items():
        config = cache._config
        # Whoever logs in otherwise may be in another account, and not see the same bucket.
        place = replace(
            config.connection,
            servers=tuple(sorted(config.connection.servers)),
            name="",
            inbox_prefix="",
            connect_timeout=0.0,
        )
        shared.setdefault((place, config.bucket.name), {})[alias] = cache
    return list(shared.values())


def disagreement(shared: Mapping[str, NatsCache]) -> str | None:
    """What is wrong with aliases that share a bucket and want it different, or None."""
    (first, cache), *others = shared.items()
    for alias, other in others:
        wanted = other._config.bucket.stream_config()
        found = differences(cache._config.bucket, wanted, {})
        if found:
            fields = ", ".join(
                f"{each.field} {each.wanted!r} or {each.existing!r}" for each in found
            )
            return (
                f"{_entries((first, alias))} share the bucket {_bucket_name(shared)}, but "
                f"disagree on its options: {fields}?"
            )
    return None


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


def _entries(aliases: Iterable[str]) -> str:
    return " and ".join(f'CACHES["{alias}"]' for alias in aliases)


def _bucket_name(shared: Mapping[str, NatsCache]) -> str:
    return next(iter(shared.values()))._config.bucket.name
