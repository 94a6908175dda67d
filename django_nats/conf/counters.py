"""An entry of NATS_COUNTERS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..client.config import ConnectionConfig
from ..client.counterconfig import CounterConfig, SourceConfig
from .connection import CONNECTION_OPTIONS, EMBEDDED_OPTIONS, read_connection
from .reader import Options, Reader

DEFAULT_STREAM = "COUNTERS"
DEFAULT_DEADLINE = 10.0

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
    "DEADLINE",
    "REQUEST_TIMEOUT",
    "SOURCES",
    "FAIL_OPEN",
    "FLUSH_INTERVAL",
    "FLUSH_AT",
    "MAX_PENDING",
}
_SOURCE_OPTIONS = {"STREAM", "PREFIX", "DOMAIN", "API_PREFIX", "DELIVER_PREFIX"}

_NAME = re.compile(r"[-_a-zA-Z0-9]+")
_SUBJECT = re.compile(r"[-_a-zA-Z0-9$]+(\.[-_a-zA-Z0-9$]+)*")
_LONGEST_PREFIX = 256
_LONGEST_HISTORY = 1_000_000
_LONGEST_AGE = 100 * 365 * 86400  # seconds; the server counts nanoseconds in 64 bits


@dataclass(frozen=True)
class CounterSettings:
    """All that an entry of NATS_COUNTERS says."""

    alias: str
    connection: ConnectionConfig
    stream: CounterConfig
    fail_open: bool
    flush_interval: float
    """Seconds for which increments that nobody waits for are added up."""
    flush_at: int
    """How many of them are published before that."""
    max_pending: int
    """How many counters may have some that are not published yet."""


def counter_aliases() -> list[str]:
    """The aliases of NATS_COUNTERS; for what is no dict, one that says so when it is read."""
    aliases: Any = getattr(settings, "NATS_COUNTERS", None) or {}
    return list(aliases) if isinstance(aliases, Mapping) else ["default"]


def counter_settings(alias: str) -> CounterSettings:
    """One entry of NATS_COUNTERS. Raises ImproperlyConfigured, naming alias and option."""
    try:
        return _read_counters(alias)
    except ImproperlyConfigured as error:
        problem = str(error)
    # A new error, since the frames of the old one hold credentials.
    raise ImproperlyConfigured(problem)


def _read_counters(alias: str) -> CounterSettings:
    reader = Reader(f'NATS_COUNTERS["{alias}"]', _entry(alias))
    reader.refuse_unknown(COUNTER_OPTIONS)
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
            "Counters need the setting NATS_COUNTERS, such as "
            '{"default": {"LOCATION": "nats://127.0.0.1:4222"}}.'
        )
    if not isinstance(aliases, Mapping) or not all(
        isinstance(entry, Mapping) for entry in aliases.values()
    ):
        raise ImproperlyConfigured("NATS_COUNTERS must be a dict of aliases, each with a dict.")
    if alias not in aliases:
        raise ImproperlyConfigured(
            f'NATS_COUNTERS has no alias "{alias}", only {", ".join(map(str, aliases))}.'
        )
    return Options(aliases[alias])


def _stream(reader: Reader) -> CounterConfig:
    name = _stream_name(reader, DEFAULT_STREAM)
    storage = reader.choice("STORAGE", "file")
    deadline = reader.seconds("DEADLINE", DEFAULT_DEADLINE)
    sources = _sources(reader, name)
    # What history is for, recognising an increment that comes again, is no business of sums.
    history = 1 if sources or storage == "memory" else 8
    config = CounterConfig(
        stream=name,
        prefix=_prefix(reader, name),
        storage=storage,
        replicas=reader.whole("REPLICAS", 1),
        history=reader.whole("HISTORY", history),
        max_age=_max_age(reader, 3 * deadline),
        deadline=deadline,
        request_timeout=reader.seconds("REQUEST_TIMEOUT", min(1.0, deadline)),
        sources=sources,
    )
    if config.replicas not in (1, 2, 3, 4, 5):
        reader.fail("REPLICAS", f"is {config.replicas}; NATS keeps 1 to 5")
    if config.history > _LONGEST_HISTORY:
        reader.fail("HISTORY", f"must be at most {_LONGEST_HISTORY:,}, not {config.history}")
    if config.request_timeout > deadline:
        reader.fail(
            "REQUEST_TIMEOUT",
            f"is {config.request_timeout:g} s, which is longer than DEADLINE, {deadline:g} s: an "
            "increment would take longer than that",
        )
    return config


def _stream_name(reader: Reader, default: str = "") -> str:
    name = reader.text("STREAM", default)
    if not _NAME.fullmatch(name):
        reader.fail("STREAM", f"is {name!r}; a stream's name is made of letters, digits, - and _")
    if name.startswith("KV_"):
        reader.fail("STREAM", f"is {name!r}; streams with KV_ are buckets, such as a cache's")
    return name


def _prefix(reader: Reader, stream: str) -> str:
    # By default another for every stream: the server lets no two have the same subjects.
    prefix = reader.text("PREFIX", stream.lower())
    if prefix.startswith(("$", "_INBOX")):
        reader.fail("PREFIX", f"is {prefix!r}; what begins with $ or _INBOX is the server's own")
    if len(prefix) > _LONGEST_PREFIX or not _SUBJECT.fullmatch(prefix):
        reader.fail(
            "PREFIX",
            f"is {prefix!r}; it is made of letters, digits, - and _, with dots between them, and "
            f"has at most {_LONGEST_PREFIX}",
        )
    return prefix


def _max_age(reader: Reader, least: float) -> float | None:
    age = reader.options.get("MAX_AGE")
    if age is None:
        return None
    if (
        isinstance(age, bool)
        or not isinstance(age, (int, float))
        or not (least <= age <= _LONGEST_AGE)
    ):
        reader.fail(
            "MAX_AGE",
            f"must be None or at least {least:g} seconds, three times DEADLINE, and at most 100 "
            f"years, not {age!r}",
        )
    return float(age)


def _sources(reader: Reader, stream: str) -> tuple[SourceConfig, ...]:
    entries = reader.options.get("SOURCES", ())
    if not isinstance(entries, (list, tuple)):
        reader.fail("SOURCES", "must be a list of streams, or of dicts with STREAM and others")
    sources = []
    for entry in entries:
        if not isinstance(entry, (str, Mapping)):
            reader.fail("SOURCES", f"holds {entry!r}, which is no stream's name and no dict")
        source = _source(reader, {"STREAM": entry} if isinstance(entry, str) else entry)
        if source in sources:
            reader.fail("SOURCES", f"names {source.stream!r} twice")
        if source.stream == stream and source.api_prefix is None:
            reader.fail("SOURCES", f"names {stream!r}, the stream itself")
        sources.append(source)
    _refuse_shared_subjects(reader, sources)
    return tuple(sources)


def _refuse_shared_subjects(reader: Reader, sources: list[SourceConfig]) -> None:
    # Leaf nodes carry a subject to every domain whose streams want it; only accounts keep theirs
    # to themselves.
    joined = [each for each in sources if not each.in_another_account]
    for one, other in combinations(joined, 2):
        first, second = sorted((f"{one.prefix}.", f"{other.prefix}."))
        if second.startswith(first):
            reader.fail(
                "SOURCES",
                f"has {one.stream!r} with PREFIX {one.prefix!r} and {other.stream!r} with "
                f"{other.prefix!r}: leaf nodes join the subjects of all domains, so that each "
                "would count what is sent to the other. Give every stream a PREFIX of its own, "
                "there and here",
            )


def _source(reader: Reader, entry: Mapping[str, object]) -> SourceConfig:
    reader = Reader(f"{reader.where}: SOURCES", entry)
    reader.refuse_unknown(_SOURCE_OPTIONS)
    stream = _stream_name(reader)
    api_prefix = reader.text("API_PREFIX") or None
    domain = reader.text("DOMAIN")
    if domain:
        if api_prefix:
            reader.fail("DOMAIN", "and API_PREFIX are two ways to say where: choose one")
        if not _NAME.fullmatch(domain):
            reader.fail("DOMAIN", f"is {domain!r}; it is made of letters, digits, - and _")
        api_prefix = f"$JS.{domain}.API"
    deliver_prefix = reader.text("DELIVER_PREFIX") or None
    for option, subject in (("API_PREFIX", api_prefix), ("DELIVER_PREFIX", deliver_prefix)):
        if subject and not _SUBJECT.fullmatch(subject):
            reader.fail(option, f"is {subject!r}, which is no NATS subject without wildcards")
    if deliver_prefix and not api_prefix:
        reader.fail("DELIVER_PREFIX", "goes with API_PREFIX or DOMAIN")
    return SourceConfig(stream, _prefix(reader, stream), api_prefix, deliver_prefix)
