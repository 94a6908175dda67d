"""Read an entry of CACHES."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .. import testrun
from ..client.kv.config import DEFAULT_MAX_VALUE_SIZE, BucketConfig, Republish
from ..client.transport.config import ConnectionConfig
from ..values import Codec, make_codec
from .connection import CONNECTION_OPTIONS, EMBEDDED, EMBEDDED_OPTIONS, read_connection
from .reader import Options, Reader
from .secrets import refuse_misplaced_secrets
from .streams import stream_options

if TYPE_CHECKING:
    from .nearcache import NearCacheConfig

DEFAULT_BUCKET = "django_cache"
UNKNOWN_ALIAS = "?"
"""The alias of a cache that was made without settings."""
_MAX_REMEMBERED = 32

BUCKET_OPTIONS = {
    "BUCKET": "name",
    "STORAGE": "storage",
    "REPLICAS": "replicas",
    "MAX_BYTES": "max_bytes",
    "MAX_ENTRIES": "max_entries",
    "MAX_VALUE_SIZE": "max_value_size",
    "EVICT": "evict",
    "PERSIST": "persist",
    "COMPRESSION": "compression",
    "PLACEMENT": "placement",
    "DESCRIPTION": "description",
    "METADATA": "metadata",
    "REPUBLISH": "republish",
    "READS": "reads",
    "JS_DOMAIN": "domain",
    "JS_API_PREFIX": "api_prefix",
    "REQUEST_TIMEOUT": "request_timeout",
}
CODEC_OPTIONS = {"SERIALIZER", "ACCEPT", "COMPRESSOR", "COMPRESS_MIN_LENGTH", "PICKLE_VERSION"}
CACHE_OPTIONS = {
    *CONNECTION_OPTIONS,
    *EMBEDDED_OPTIONS,
    *BUCKET_OPTIONS,
    *CODEC_OPTIONS,
    "FAIL_OPEN",
    "NEAR_CACHE",
}


class CacheConfig(NamedTuple):
    """The settings of an entry of CACHES, without those that Django itself reads."""

    alias: str
    connection: ConnectionConfig
    bucket: BucketConfig
    codec: Codec
    fail_open: bool
    near_cache: NearCacheConfig | None = None


_remembered: list[tuple[object, CacheConfig]] = []


def cache_config(location: object, params: dict[str, Any]) -> CacheConfig:
    """Return the configuration of an entry of CACHES.

    Raises ImproperlyConfigured, which names the alias and the option.

    Replaces params["OPTIONS"] by an equal dict that keeps its values out of tracebacks: Django has
    made ``params`` for this one cache, and the frame that did shows them.
    """
    params["OPTIONS"] = Options(params.get("OPTIONS") or {})
    try:
        return _read_once(location, params)
    except ImproperlyConfigured as error:
        problem = str(error)
    # Raised outside of the except block, since the frames of the first error hold credentials.
    raise ImproperlyConfigured(problem)


def _read_once(location: object, params: Mapping[str, Any]) -> CacheConfig:
    """Return the configuration that was read from equal settings before, or read it.

    Under ASGI, Django makes a cache object for every request.
    """
    base = getattr(settings, "BASE_DIR", None)
    entry = (settings.DEBUG, base, testrun.current(), settings.CACHES, location, dict(params))
    for known, config in _remembered:
        if known == entry:
            return config
    config = _read_cache(location, params)
    _remembered.insert(0, (entry, config))
    del _remembered[_MAX_REMEMBERED:]
    return config


def _read_cache(location: object, params: Mapping[str, Any]) -> CacheConfig:
    alias = _alias_of(location, params)
    options = dict(params["OPTIONS"])
    where = f'CACHES["{alias}"]'
    reader = Reader(where, options, f'{where}["OPTIONS"]')
    reader.refuse_unknown(CACHE_OPTIONS)
    refuse_misplaced_secrets(reader, location)
    bucket = _bucket(reader, location)
    for size, least in (("MAX_VALUE_SIZE", 1), ("COMPRESS_MIN_LENGTH", 0)):
        if size in options:
            options[size] = reader.size(size, least)
    try:
        codec = make_codec(options, bucket=bucket.name)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{reader.where}: {error}") from error
    return CacheConfig(
        alias=alias,
        connection=read_connection(reader, location),
        bucket=bucket,
        codec=codec,
        fail_open=reader.boolean("FAIL_OPEN", False),
        near_cache=_near_cache(reader),
    )


def _near_cache(reader: Reader) -> NearCacheConfig | None:
    if reader.options.get("NEAR_CACHE") is None:
        return None
    from .nearcache import read_near_cache  # not imported where no cache has the option

    return read_near_cache(reader)


def _republish(reader: Reader, subjects: str) -> Republish | None:
    if reader.options.get("REPUBLISH") is None:
        return None
    from .republish import read_republish  # not imported where no cache has the option

    return read_republish(reader, subjects)


def _alias_of(location: object, params: Mapping[str, Any]) -> str:
    """Return the alias whose entry has these settings, since Django does not pass it on."""
    for alias, entry in settings.CACHES.items():
        known = {"LOCATION": "", "OPTIONS": {}, **entry}
        known.pop("BACKEND", None)
        if known == {**params, "LOCATION": location}:
            return str(alias)
    return UNKNOWN_ALIAS


def _bucket(reader: Reader, location: object) -> BucketConfig:
    name = reader.text("BUCKET", DEFAULT_BUCKET)
    if not re.fullmatch(r"[-_a-zA-Z0-9]+", name):
        reader.fail("BUCKET", f"is {name!r}; a bucket's name is made of letters, digits, - and _")
    shared = stream_options(reader, BucketConfig.description)
    max_bytes = shared["max_bytes"]
    max_value_size = reader.size("MAX_VALUE_SIZE")
    if max_value_size is None:
        quarter = DEFAULT_MAX_VALUE_SIZE if max_bytes is None else max(1, max_bytes // 4)
        max_value_size = min(DEFAULT_MAX_VALUE_SIZE, quarter)
    elif max_bytes is not None and max_value_size >= max_bytes:
        reader.fail("MAX_VALUE_SIZE", f"is {max_value_size}; it must be below MAX_BYTES")
    config = BucketConfig(
        name=name,
        # The embedded server ends with the last process that uses it. Values should survive
        # from one management command to the next.
        storage=reader.choice("STORAGE", "file" if location == EMBEDDED else "memory"),
        max_entries=reader.whole("MAX_ENTRIES", 0) or None,
        max_value_size=max_value_size,
        evict=reader.boolean("EVICT", True),
        persist=reader.choice("PERSIST"),
        republish=_republish(reader, f"$KV.{name}.>"),
        request_timeout=reader.seconds("REQUEST_TIMEOUT", 1.0),
        **shared,
    )
    if config.persist == "async" and (config.storage, config.replicas) != ("file", 1):
        reader.fail("PERSIST", 'can be "async" only with STORAGE "file" and REPLICAS 1')
    return config
