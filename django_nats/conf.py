"""Settings to frozen dataclasses: the one place that knows the names of the options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .client.bucket import DEFAULT_MAX_VALUE_SIZE, BucketConfig
from .client.config import ConnectionConfig, TLSConfig
from .values import Codec, make_codec

EMBEDDED = "embedded"
DEFAULT_LOCATION = "nats://127.0.0.1:4222"
DEFAULT_BUCKET = "django_cache"
_MOST_READ = 32

CONNECTION_OPTIONS = {
    "NAME": "name",
    "USER": "user",
    "PASSWORD": "password",
    "TOKEN": "token",
    "NKEY_SEED": "nkey_seed",
    "CREDENTIALS": "credentials",
    "TLS": "tls",
    "INBOX_PREFIX": "inbox_prefix",
    "CONNECT_TIMEOUT": "connect_timeout",
}
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
    "READS": "reads",
    "REQUEST_TIMEOUT": "request_timeout",
}
CODEC_OPTIONS = {"SERIALIZER", "ACCEPT", "COMPRESSOR", "COMPRESS_MIN_LENGTH", "PICKLE_VERSION"}
OTHER_OPTIONS = {"FAIL_OPEN", "EMBEDDED_DIR", "ALLOW_EMBEDDED"}
CACHE_OPTIONS = {*CONNECTION_OPTIONS, *BUCKET_OPTIONS, *CODEC_OPTIONS, *OTHER_OPTIONS}

_CHOICES = {
    "STORAGE": ("memory", "file"),
    "PERSIST": ("sync", "async"),
    "COMPRESSION": ("none", "s2"),
    "READS": ("any", "leader"),
}
_LOCATION_MUST_BE = f'must be nats://host:port, tls://host:port, a list of these, or "{EMBEDDED}"'
_SUBJECT = re.compile(r"[^\s.*>\x7f]+(\.[^\s.*>\x7f]+)*")
_UNITS = {"": 1, "B": 1, "kB": 1000}
for _power, _prefix in enumerate("KMGT", start=1):
    _UNITS[f"{_prefix}iB"] = 1024**_power
    _UNITS[f"{_prefix}B"] = 1000**_power


@dataclass(frozen=True)
class CacheConfig:
    """All that an entry of CACHES says, besides what Django itself reads of it."""

    alias: str
    connection: ConnectionConfig
    bucket: BucketConfig
    codec: Codec
    fail_open: bool


_read: list[tuple[object, CacheConfig]] = []


class _Options(dict[str, Any]):
    """Options whose repr shows names only: Django's debug page prints every frame's variables."""

    def __repr__(self) -> str:
        return f"<options {', '.join(map(str, self))}>"


def cache_config(location: object, params: dict[str, Any]) -> CacheConfig:
    """One entry of CACHES. Raises ImproperlyConfigured, naming alias and option.

    Replaces params["OPTIONS"] by an equal dict that keeps its values out of tracebacks: Django
    made params for this one cache, and its own frame shows them.
    """
    params["OPTIONS"] = _Options(params.get("OPTIONS") or {})
    try:
        return _remembered(location, params)
    except ImproperlyConfigured as error:
        problem = str(error)
    # A new error, since the frames of the old one hold credentials.
    raise ImproperlyConfigured(problem)


def _remembered(location: object, params: Mapping[str, Any]) -> CacheConfig:
    """Settings are read once: under ASGI, Django makes a cache object for every request."""
    base = getattr(settings, "BASE_DIR", None)
    entry = (settings.DEBUG, base, settings.CACHES, location, dict(params))
    for known, config in _read:
        if known == entry:
            return config
    config = _read_cache(location, params)
    _read.insert(0, (entry, config))
    del _read[_MOST_READ:]
    return config


def _read_cache(location: object, params: Mapping[str, Any]) -> CacheConfig:
    alias = _alias_of(location, params)
    options = dict(params["OPTIONS"])
    reader = _Reader(f'CACHES["{alias}"]', options)
    reader.refuse_unknown(CACHE_OPTIONS)
    bucket = _bucket(reader, location)
    for size, least in (("MAX_VALUE_SIZE", 1), ("COMPRESS_MIN_LENGTH", 0)):
        if size in options:
            options[size] = reader.size(size, least)
    try:
        codec = make_codec(options)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{reader.where}: {error}") from error
    return CacheConfig(
        alias=alias,
        connection=_connection(reader, location),
        bucket=bucket,
        codec=codec,
        fail_open=reader.boolean("FAIL_OPEN", False),
    )


def _alias_of(location: object, params: Mapping[str, Any]) -> str:
    """Django does not tell a backend its alias: find the entry these params were copied from."""
    for alias, entry in settings.CACHES.items():
        known = {"LOCATION": "", "OPTIONS": {}, **entry}
        known.pop("BACKEND", None)
        if known == {**params, "LOCATION": location}:
            return str(alias)
    return "?"


def _bucket(reader: _Reader, location: object) -> BucketConfig:
    name = reader.text("BUCKET", DEFAULT_BUCKET)
    if not re.fullmatch(r"[-_a-zA-Z0-9]+", name):
        reader.fail("BUCKET", f"is {name!r}; a bucket's name is made of letters, digits, - and _")
    placement = reader.mapping("PLACEMENT", {"CLUSTER", "TAGS"})
    tags = placement.get("TAGS", ())
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
        reader.fail("PLACEMENT", "has TAGS that are not a list of strings")
    if not isinstance(placement.get("CLUSTER", ""), str):
        reader.fail("PLACEMENT", "has a CLUSTER that is not a string")
    max_bytes = reader.size("MAX_BYTES")
    max_value_size = reader.size("MAX_VALUE_SIZE")
    if max_value_size is None:
        quarter = DEFAULT_MAX_VALUE_SIZE if max_bytes is None else max(1, max_bytes // 4)
        max_value_size = min(DEFAULT_MAX_VALUE_SIZE, quarter)
    elif max_bytes is not None and max_value_size >= max_bytes:
        reader.fail("MAX_VALUE_SIZE", f"is {max_value_size}; it must be below MAX_BYTES")
    config = BucketConfig(
        name=name,
        # The embedded server ends with its last user, and is to keep what one command leaves to
        # the next.
        storage=reader.choice("STORAGE", "file" if location == EMBEDDED else "memory"),
        replicas=reader.whole("REPLICAS", 1),
        max_bytes=max_bytes,
        max_entries=reader.whole("MAX_ENTRIES", 0) or None,
        max_value_size=max_value_size,
        evict=reader.boolean("EVICT", True),
        persist=reader.choice("PERSIST"),
        compression=reader.choice("COMPRESSION"),
        placement_cluster=placement.get("CLUSTER"),
        placement_tags=tuple(tags),
        description=reader.text("DESCRIPTION", "Django cache"),
        reads=reader.choice("READS", "any"),
        request_timeout=reader.seconds("REQUEST_TIMEOUT", 1.0),
    )
    if config.replicas not in (1, 2, 3, 4, 5):
        reader.fail("REPLICAS", f"is {config.replicas}; NATS keeps 1 to 5")
    if config.persist == "async" and (config.storage, config.replicas) != ("file", 1):
        reader.fail("PERSIST", 'can be "async" only with STORAGE "file" and REPLICAS 1')
    return config


def _connection(reader: _Reader, location: object) -> ConnectionConfig:
    values: dict[str, Any] = {
        attribute: reader.text(option)
        for option, attribute in CONNECTION_OPTIONS.items()
        if option not in ("TLS", "CONNECT_TIMEOUT") and option in reader.options
    }
    values["connect_timeout"] = reader.seconds("CONNECT_TIMEOUT", 2.0)
    prefix = values.get("inbox_prefix", "_INBOX")
    if not prefix.isascii() or not _SUBJECT.fullmatch(prefix):
        reader.fail("INBOX_PREFIX", f"is {prefix!r}, which is no NATS subject without wildcards")
    tls = reader.mapping("TLS", {"CA", "CERT", "KEY", "HOSTNAME"})
    for member, path in tls.items():
        if not isinstance(path, str):
            reader.fail("TLS", f"has a {member} that is no string, but {type(path).__name__}")
    if "KEY" in tls and "CERT" not in tls:
        reader.fail("TLS", "has a KEY, but no CERT")
    if "TLS" in reader.options:
        values["tls"] = TLSConfig(
            tls.get("CA"), tls.get("CERT"), tls.get("KEY"), tls.get("HOSTNAME")
        )
    if location == EMBEDDED:
        for attribute in ("user", "password", "token", "nkey_seed", "credentials", "tls"):
            if attribute in values:
                reader.fail(attribute.upper(), f'does not go with LOCATION "{EMBEDDED}"')
        return ConnectionConfig(embedded=_embedded(reader), **values)
    if reader.options.keys() & {"EMBEDDED_DIR", "ALLOW_EMBEDDED"}:
        reader.fail("EMBEDDED_DIR", f'and ALLOW_EMBEDDED go with LOCATION "{EMBEDDED}" only')
    if isinstance(location, str):
        location = re.split("[;,]", location or DEFAULT_LOCATION)
    if not isinstance(location, (list, tuple)) or not location:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(location)}")
    servers = []
    for url in location:
        server, credentials = _server(reader, url)
        servers.append(server)
        for attribute, value in credentials.items():
            if values.setdefault(attribute, value) != value:
                reader.fail("LOCATION", "has credentials that are not the same everywhere")
    if ("user" in values) != ("password" in values):
        reader.fail("USER", "and PASSWORD go together")
    ways = [way for way in ("user", "token", "nkey_seed", "credentials") if way in values]
    if len(ways) > 1:
        reader.fail(ways[1].upper(), f"and {ways[0].upper()} are two ways to log in: choose one")
    return ConnectionConfig(servers=tuple(servers), **values)


def _server(reader: _Reader, url: object) -> tuple[str, dict[str, str]]:
    """A server's URL without credentials, and the credentials."""
    text = url.strip() if isinstance(url, str) else ""
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, 4222 if parts.port is None else parts.port
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if not host or not port or parts.scheme not in ("nats", "tls") or extra:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(url)}")
    credentials = {}
    if parts.password is not None:
        credentials = {"user": unquote(parts.username or ""), "password": unquote(parts.password)}
    elif parts.username is not None:
        credentials = {"token": unquote(parts.username)}
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}:{port}", credentials


def _shown(location: object) -> str:
    """A location for an error: only those parts of a URL that can hold no password."""
    if not isinstance(location, str):
        return repr(location) if not location else type(location).__name__
    safe = re.match(r"(\w+://)?(.*@)?([\w.-]*(?::\d{1,5}(?=$|[/?#]))?)", location, re.DOTALL)
    scheme, credentials, host = safe.groups("") if safe else ("", "", "")
    rest = "***" if safe and safe.end() < len(location) else ""
    return repr(f"{scheme}{'***@' if credentials else ''}{host}{rest}")


def _embedded(reader: _Reader) -> str:
    if not settings.DEBUG and not reader.boolean("ALLOW_EMBEDDED", False):
        reader.fail(
            "LOCATION",
            f'is "{EMBEDDED}", a server for development, but DEBUG is off. Run a NATS server and '
            "name it. Django's test runner turns DEBUG off, too: in tests use the pytest fixture "
            'nats_cache, or set OPTIONS["ALLOW_EMBEDDED"] = True',
        )
    directory = reader.options.get("EMBEDDED_DIR")
    base = Path(getattr(settings, "BASE_DIR", None) or Path.cwd())
    return str(Path(directory).absolute() if directory else base.absolute() / ".nats")


class _Reader:
    """Typed access to options, with errors that name setting and option, but never a secret."""

    def __init__(self, where: str, options: Mapping[str, Any]) -> None:
        self.where = where
        self.options = options

    def fail(self, option: str, problem: str) -> NoReturn:
        raise ImproperlyConfigured(f"{self.where}: {option} {problem}.")

    def refuse_unknown(self, known: set[str]) -> None:
        for option in self.options:
            if option not in known:
                close = get_close_matches(str(option).upper(), known, n=1)
                hint = (
                    f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(known))}."
                )
                raise ImproperlyConfigured(f"{self.where}: unknown option {option!r}. {hint}")

    def text(self, option: str, default: str = "") -> str:
        value = self.options.get(option, default)
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            self.fail(option, f"must be a string, not {type(value).__name__}")
        return str(value)

    def boolean(self, option: str, default: bool) -> bool:
        value = self.options.get(option, default)
        if not isinstance(value, bool):
            self.fail(option, f"must be True or False, not {value!r}")
        return bool(value)

    def choice(self, option: str, default: str | None = None) -> str:
        choices = _CHOICES[option]
        value = self.options.get(option, default or choices[0])
        if value not in choices:
            self.fail(option, f"is {value!r}; it can be {' or '.join(map(repr, choices))}")
        return str(value)

    def whole(self, option: str, default: int) -> int:
        value = self.options.get(option, default)
        if type(value) is not int or value < min(default, 1):
            self.fail(option, f"must be a whole number, not {value!r}")
        return int(value)

    def seconds(self, option: str, default: float) -> float:
        value = self.options.get(option, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 3600:
            self.fail(option, f"must be a number of seconds between 0 and 3600, not {value!r}")
        return float(value)

    def size(self, option: str, least: int = 1) -> int | None:
        """Bytes: a number, or text such as "64MiB"; None when the option is absent."""
        value = self.options.get(option)
        if value is None:
            return None
        match = re.fullmatch(r"\s*(\d+)\s*([a-zA-Z]*)\s*", str(value))
        size = int(match[1]) * _UNITS.get(match[2], -1) if match else -1
        if size < least:
            self.fail(option, f'must be a number of bytes or a size like "64MiB", not {value!r}')
        return size

    def mapping(self, option: str, known: set[str]) -> dict[str, Any]:
        value = self.options.get(option, {})
        if not isinstance(value, Mapping):
            self.fail(option, f"must be a dict with {', '.join(sorted(known))}")
        for name in value:
            if name not in known:
                members = ", ".join(sorted(known))
                self.fail(option, f"has an unknown member {name!r}; known: {members}")
        return {name: str(each) if isinstance(each, Path) else each for name, each in value.items()}
