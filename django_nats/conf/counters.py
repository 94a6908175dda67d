"""Read an entry of NATS_COUNTERS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..client.counters.config import CounterConfig, SourceConfig
from ..client.streams.api import domain_prefix
from ..client.transport.config import ConnectionConfig
from .connection import CONNECTION_OPTIONS, EMBEDDED_OPTIONS, read_connection
from .reader import Options, Reader
from .secrets import refuse_misplaced_secrets
from .streams import stream_options

DEFAULT_STREAM = "COUNTERS"
DEFAULT_DEADLINE_S = 10.0

COUNTER_OPTIONS = {
    "LOCATION",
    *CONNECTION_OPTIONS,
    *EMBEDDED_OPTIONS,
    "STREAM",
    "PREFIX",
    "STORAGE",
    "REPLICAS",
    "HISTORY",
    "MAX_AGE",
    "MAX_BYTES",
    "COMPRESSION",
    "PLACEMENT",
    "DESCRIPTION",
    "METADATA",
    "READS",
    "JS_DOMAIN",
    "JS_API_PREFIX",
    "DEADLINE",
    "REQUEST_TIMEOUT",
    "SOURCES",
    "FAIL_OPEN",
    "FLUSH_INTERVAL",
    "FLUSH_AT",
    "MAX_PENDING",
}
SOURCE_MEMBERS = {"STREAM", "PREFIX", "DOMAIN", "API_PREFIX", "DELIVER_PREFIX"}

_NAME = re.compile(r"[-_a-zA-Z0-9]+")
_SUBJECT = re.compile(r"[-_a-zA-Z0-9$]+(\.[-_a-zA-Z0-9$]+)*")
_MAX_PREFIX_LENGTH = 256
_MAX_HISTORY = 1_000_000
_LEAST_MAX_BYTES = 64 * 1024
"""Room for the largest counters. The server acknowledges a message that is larger than the stream
may be, and then empties the stream."""
_LONGEST_AGE_S = 100 * 365 * 86400  # the server counts nanoseconds in 64 bits


@dataclass(frozen=True)
class CounterSettings:
    """The settings of an entry of NATS_COUNTERS."""

    alias: str
    connection: ConnectionConfig
    stream: CounterConfig
    fail_open: bool
    flush_interval: float
    """Seconds for which write-behind increments are added up before they are published."""
    flush_at: int
    """The number of write-behind increments after which they are published earlier."""
    max_pending: int
    """The largest number of counters with unpublished increments."""


def counter_aliases() -> list[str]:
    """Return the aliases of NATS_COUNTERS.

    If the setting is not a dict, return one alias, so that reading that raises the error.
    """
    aliases: Any = getattr(settings, "NATS_COUNTERS", None) or {}
    return list(aliases) if isinstance(aliases, Mapping) else ["default"]


def counter_settings(alias: str) -> CounterSettings:
    """Return the settings of an alias of NATS_COUNTERS.

    Raises ImproperlyConfigured, which names the alias and the option.
    """
    try:
        return _read_counters(alias)
    except ImproperlyConfigured as error:
        problem = str(error)
    # Raised outside of the except block, since the frames of the first error hold credentials.
    raise ImproperlyConfigured(problem)


def _read_counters(alias: str) -> CounterSettings:
    reader = Reader(f'NATS_COUNTERS["{alias}"]', _entry(alias))
    if "OPTIONS" in reader.options:
        reader.fail("OPTIONS", "is only for CACHES: write the options of counters beside LOCATION")
    reader.refuse_unknown(COUNTER_OPTIONS)
    refuse_misplaced_secrets(reader, reader.options.get("LOCATION", ""))
    return CounterSettings(
        alias=alias,
        connection=read_connection(reader, reader.options.get("LOCATION", "")),
        stream=_stream(reader),
        fail_open=reader.boolean("FAIL_OPEN", False),
        flush_interval=reader.seconds("FLUSH_INTERVAL", 1.0),
        flush_at=reader.whole("FLUSH_AT", 10_000),
        max_pending=reader.whole("MAX_PENDING", 100_000),
    )


def _entry(alias: str) -> Options:
    aliases: Any = getattr(settings, "NATS_COUNTERS", None)
    if not aliases:
        raise ImproperlyConfigured(
            "Counters need the setting NATS_COUNTERS, for example "
            '{"default": {"LOCATION": "nats://127.0.0.1:4222"}}.'
        )
    if not isinstance(aliases, Mapping) or not all(
        isinstance(entry, Mapping) for entry in aliases.values()
    ):
        raise ImproperlyConfigured(
            "NATS_COUNTERS must be a dict with a dict of options for each alias."
        )
    if alias not in aliases:
        raise ImproperlyConfigured(
            f'NATS_COUNTERS has no alias "{alias}", only {", ".join(map(str, aliases))}.'
        )
    return Options(aliases[alias])


def _stream(reader: Reader) -> CounterConfig:
    name = _stream_name(reader, DEFAULT_STREAM)
    storage = reader.choice("STORAGE", "file")
    deadline = reader.seconds("DEADLINE", DEFAULT_DEADLINE_S)
    sources = _sources(reader, name)
    # History lets a restarted server recognise an increment that is sent again. Nothing is sent to
    # a sum.
    history = 1 if sources or storage == "memory" else 8
    config = CounterConfig(
        stream=name,
        prefix=_prefix(reader, name),
        storage=storage,
        history=reader.whole("HISTORY", history),
        max_age=_max_age(reader, 3 * deadline),
        deadline=deadline,
        request_timeout=reader.seconds("REQUEST_TIMEOUT", min(1.0, deadline)),
        sources=sources,
        **stream_options(reader, CounterConfig.description),
    )
    if config.max_bytes is not None and config.max_bytes < _LEAST_MAX_BYTES:
        reader.fail(
            "MAX_BYTES",
            f"is {config.max_bytes}; it must be at least {_LEAST_MAX_BYTES}, since counters for "
            "which there is no room restart at 0",
        )
    if config.history > _MAX_HISTORY:
        reader.fail("HISTORY", f"must be at most {_MAX_HISTORY:,}, not {config.history}")
    if config.request_timeout > deadline:
        reader.fail(
            "REQUEST_TIMEOUT",
            f"is {config.request_timeout:g} s; it must not be longer than DEADLINE, "
            f"{deadline:g} s, since one request would take longer than an increment may",
        )
    return config


def _stream_name(reader: Reader, default: str = "") -> str:
    name = reader.text("STREAM", default)
    if not _NAME.fullmatch(name):
        reader.fail("STREAM", f"is {name!r}; a stream's name is made of letters, digits, - and _")
    if name.startswith("KV_"):
        reader.fail(
            "STREAM",
            f"is {name!r}; names with KV_ are those of buckets, such as a cache's",
        )
    return name


def _prefix(reader: Reader, stream: str) -> str:
    # Derived from the stream's name, since the server lets no two streams share subjects.
    prefix = reader.text("PREFIX", stream.lower())
    if prefix.startswith(("$", "_INBOX")):
        reader.fail(
            "PREFIX",
            f"is {prefix!r}; names that begin with $ or _INBOX are the server's",
        )
    if len(prefix) > _MAX_PREFIX_LENGTH or not _SUBJECT.fullmatch(prefix):
        reader.fail(
            "PREFIX",
            f"is {prefix!r}; it must be made of letters, digits, - and _, with dots between them, "
            f"and have at most {_MAX_PREFIX_LENGTH} characters",
        )
    return prefix


def _max_age(reader: Reader, least: float) -> float | None:
    age = reader.options.get("MAX_AGE")
    if age is None:
        return None
    if (
        isinstance(age, bool)
        or not isinstance(age, (int, float))
        or not (least <= age <= _LONGEST_AGE_S)
    ):
        reader.fail(
            "MAX_AGE",
            f"must be None, or a number of seconds from {least:g}, three times DEADLINE, to 100 "
            f"years, not {age!r}",
        )
    return float(age)


def _sources(reader: Reader, stream: str) -> tuple[SourceConfig, ...]:
    entries = reader.options.get("SOURCES", ())
    if not isinstance(entries, (list, tuple)):
        reader.fail("SOURCES", "must be a list of stream names, or of dicts with STREAM")
    sources = []
    for entry in entries:
        if not isinstance(entry, (str, Mapping)):
            reader.fail("SOURCES", f"holds {entry!r}, which is neither a stream's name nor a dict")
        source = _source(reader, {"STREAM": entry} if isinstance(entry, str) else entry)
        if source in sources:
            reader.fail("SOURCES", f"names {source.stream!r} twice")
        if source.stream == stream and source.api_prefix is None:
            reader.fail("SOURCES", f"names {stream!r}, the stream itself")
        sources.append(source)
    _refuse_shared_subjects(reader, sources)
    return tuple(sources)


def _refuse_shared_subjects(reader: Reader, sources: list[SourceConfig]) -> None:
    # Leaf nodes carry a message to every domain that has a stream for its subject. Only accounts
    # keep their subjects apart.
    joined = [each for each in sources if not each.in_another_account]
    for one, other in combinations(joined, 2):
        first, second = sorted((f"{one.prefix}.", f"{other.prefix}."))
        if second.startswith(first):
            reader.fail(
                "SOURCES",
                f"has {one.stream!r} with PREFIX {one.prefix!r} and {other.stream!r} with "
                f"{other.prefix!r}. Leaf nodes join the subjects of all domains, so each stream "
                "would also count what is sent to the other. Give every stream a PREFIX of its "
                "own, in its own settings and in SOURCES",
            )


def _source(reader: Reader, entry: Mapping[str, object]) -> SourceConfig:
    reader = Reader(f"{reader.where}: SOURCES", entry)
    reader.refuse_unknown(SOURCE_MEMBERS)
    stream = _stream_name(reader)
    api_prefix = reader.text("API_PREFIX") or None
    domain = reader.text("DOMAIN")
    if domain:
        if api_prefix:
            reader.fail("DOMAIN", "and API_PREFIX both say where the stream is: choose one")
        if not _NAME.fullmatch(domain):
            reader.fail("DOMAIN", f"is {domain!r}; it must be made of letters, digits, - and _")
        api_prefix = domain_prefix(domain)
    deliver_prefix = reader.text("DELIVER_PREFIX") or None
    for option, subject in (("API_PREFIX", api_prefix), ("DELIVER_PREFIX", deliver_prefix)):
        if subject and not _SUBJECT.fullmatch(subject):
            reader.fail(option, f"is {subject!r}, which is not a NATS subject without wildcards")
    if deliver_prefix and not api_prefix:
        reader.fail("DELIVER_PREFIX", "needs API_PREFIX or DOMAIN")
    return SourceConfig(stream, _prefix(reader, stream), api_prefix, deliver_prefix)
