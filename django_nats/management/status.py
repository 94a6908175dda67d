"""``manage.py nats status``: shows what the project keeps on NATS, and the state of its servers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import NatsCache, nats_caches
from ..checks.declarations import in_use
from ..checks.streams import StreamOf, of_caches, of_counters, of_limits
from ..client import drivers
from ..client.counters.config import nearly_full
from ..client.counters.sources import SourceLag, lags_of
from ..client.streams.config import NANOSECONDS
from ..client.streams.differences import differences
from ..conf.counters import counter_aliases, counter_settings
from ..exceptions import NatsError
from ..printable import counted, duration, printable
from ..realtime import monotonic
from .subcommand import NOTHING, Subcommand


@dataclass(kw_only=True)
class StreamStatus(ABC):
    """The state of an alias's stream. Sizes are in bytes. A limit of None means no limit."""

    alias: str
    servers: str
    error: str | None = None
    """Why the server could not be asked. All below is unknown then."""
    server: str | None = None
    """The name and version of the connected server."""
    rtt: float | None = None
    """The time from a request to the server's answer, in seconds."""
    exists: bool = False
    """Whether the stream exists. The first use creates it."""
    storage: str | None = None
    replicas: int | None = None
    bytes: int = 0
    max_bytes: int | None = None
    differences: list[str] = field(default_factory=list)
    """What differs from settings."""

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Take over the server's description of the stream, its configuration and state."""
        self.exists = True
        self.storage = config["storage"]
        self.replicas = config["num_replicas"]
        self.bytes = state["bytes"]
        self.max_bytes = _positive(config.get("max_bytes"))

    @property
    def size(self) -> str:
        """Return the size of the stream and its limit."""
        return f"{self.bytes:,}{_limit(self.max_bytes)}"

    @abstractmethod
    def lines(self) -> list[tuple[str, str]]:
        """Return names and texts to show, besides server, storage and differences."""


@dataclass(kw_only=True)
class CacheStatus(StreamStatus):
    """The state of a cache's bucket."""

    bucket: str
    entries: int = 0
    """Messages in the bucket, including the tombstones of keys deleted in the last minute."""
    max_entries: int | None = None
    max_value_size: int | None = None
    near_cache: list[str] = field(default_factory=list)
    """Patterns of the keys of which each process keeps copies. Empty without NEAR_CACHE."""
    follows: list[str] = field(default_factory=list)
    """Subjects whose changes the server sends to each of these processes."""

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Take over the server's description of the bucket, its configuration and state."""
        super().learn(config, state)
        self.entries = state["messages"]
        self.max_entries = _positive(config.get("max_msgs"))
        self.max_value_size = _positive(config.get("max_msg_size"))

    def lines(self) -> list[tuple[str, str]]:
        """Return entries, bytes, the limit of values, and what the near cache copies."""
        lines = [
            ("entries", f"{self.entries:,}{_limit(self.max_entries)}"),
            ("bytes", self.size),
        ]
        if self.max_value_size is not None:
            lines.append(("values", f"up to {self.max_value_size:,} bytes each"))
        if self.near_cache:
            lines.append(
                (
                    "near",
                    f"copies of {', '.join(self.near_cache)}, following {', '.join(self.follows)}",
                )
            )
        return lines


@dataclass(kw_only=True)
class CounterStatus(StreamStatus):
    """The state of a counter stream."""

    stream: str
    counters: int = 0
    messages: int = 0
    """Messages in the stream, at most ``history`` for each counter."""
    history: int | None = None
    max_age: float | None = None
    """The time without a change after which a counter is deleted, in seconds."""
    nearly_full: str | None = None
    """What will happen soon, if ``max_bytes`` is nearly used up."""
    sources: list[SourceLag] = field(default_factory=list)

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Take over the server's description of the stream, its configuration and state."""
        super().learn(config, state)
        self.counters = state.get("num_subjects", 0)
        self.messages = state["messages"]
        self.history = _positive(config.get("max_msgs_per_subject"))
        age = _positive(config.get("max_age"))
        self.max_age = None if age is None else age / NANOSECONDS
        self.nearly_full = nearly_full(config, state)

    def lines(self) -> list[tuple[str, str]]:
        """Return counters, messages and bytes, and how far behind each source is."""
        lifetime = "until reset"
        if self.max_age is not None:
            lifetime = f"for {duration(self.max_age)} after its last change"
        limit = "no limit" if self.history is None else f"up to {self.history:,}"
        lines = [
            ("counters", f"{self.counters:,}, each kept {lifetime}"),
            ("messages", f"{self.messages:,}, {limit} for each counter"),
            ("bytes", self.size),
        ]
        return [*lines, *(("source", _source_text(each)) for each in self.sources)]


@dataclass(kw_only=True)
class LimitStatus(CounterStatus):
    """The state of a stream of limits, or of one of quotas."""

    used_by: list[str]
    """The names of the limits or quotas that are known to count in it."""

    def lines(self) -> list[tuple[str, str]]:
        """Return the limits or quotas, and what is counted for them."""
        return [("used by", ", ".join(map(printable, self.used_by))), *super().lines()]


class Status(Subcommand):
    """The subcommand ``status``.

    It creates and changes nothing. The exit status is 1 if a server cannot be asked about a stream.
    """

    name = "status"
    silent_at_verbosity_0 = False
    help = "Show the servers and streams of caches, counters, limits and quotas, and their state."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare --json."""
        parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show all streams. Raises CommandError if one of them could not be asked about."""
        known = nats_caches()
        caches = {each: _status_of_cache(each, known[each.alias]) for each in of_caches(known)}
        aliases = {alias: counter_settings(alias) for alias in counter_aliases()}
        counters = {each: _status_of_counters(each) for each in of_counters(aliases)}
        limits = {each: _status_of_limits(each) for each in of_limits(in_use())}
        if options["json"]:
            document = {
                "caches": [asdict(each) for each in caches.values()],
                "counters": [
                    {**asdict(each), "sources": [lag._asdict() for lag in each.sources]}
                    for each in counters.values()
                ],
                "limits": [asdict(each) for each in limits.values()],
            }
            self.stdout.write(json.dumps(document, indent=2))
        found = {**caches, **counters, **limits}
        if not options["json"]:
            for stream, status in found.items():
                self._show(stream, status)
        failed = [stream.entry for stream, status in found.items() if status.error is not None]
        if failed:
            raise CommandError(f"The state could not be read of {', '.join(failed)}.")
        if not found:
            raise CommandError(NOTHING)

    def _show(self, stream: StreamOf, status: StreamStatus) -> None:
        self.stdout.write(f"{status.alias}: {stream.title} on {status.servers}")
        if status.error is not None:
            self.stdout.write(f"  {status.error}", self.style.ERROR)
            return
        rtt = (status.rtt or 0) * 1000
        self.stdout.write(f"  server   {status.server}, round trip {rtt:.2f} ms")
        if not status.exists:
            self.stdout.write("  absent: created on first use, or by `manage.py nats setup`")
            return
        self.stdout.write(f"  storage  {status.storage}, replicas: {status.replicas}")
        for name, text in status.lines():
            self.stdout.write(f"  {name:8} {text}")
        if isinstance(status, CounterStatus) and status.nearly_full is not None:
            self.stdout.write(f"  full     {status.nearly_full}", self.style.WARNING)
        for each in status.differences:
            self.stdout.write(f"  differs  {each}", self.style.WARNING)
        if status.differences:
            self.stdout.write("  `manage.py nats setup --plan` shows what can be changed")


def _status_of_cache(stream: StreamOf, cache: NatsCache) -> CacheStatus:
    status = CacheStatus(
        alias=stream.alias, servers=stream.connection.where, bucket=stream.stream.config.name
    )
    near, wanted = cache.near, cache.config.near_cache
    if near is not None and wanted is not None:
        status.near_cache = list(wanted.keys)
        status.follows = list(near.subjects)
    _ask(stream, status)
    return status


def _status_of_counters(stream: StreamOf) -> CounterStatus:
    config = stream.stream.config
    status = CounterStatus(
        alias=stream.alias, servers=stream.connection.where, stream=config.stream
    )
    if (document := _ask(stream, status)) is not None:
        status.sources = lags_of(document, config.sources)
    return status


def _status_of_limits(stream: StreamOf) -> LimitStatus:
    status = LimitStatus(
        alias=stream.alias,
        servers=stream.connection.where,
        stream=stream.stream.config.stream,
        used_by=list(dict.fromkeys(each.name for each in stream.limits)),
    )
    _ask(stream, status)
    return status


def _ask(of: StreamOf, status: StreamStatus) -> Mapping[str, Any] | None:
    """Ask the server about a stream. Return its answer, or None if the stream does not exist."""
    stream, session = of.stream, of.session
    try:
        # Asked twice, since the time of the first request may include that of connecting.
        drivers.run(session, stream.opening.info())
        asked = monotonic()
        document = drivers.run(session, stream.opening.info())
    except NatsError as error:
        status.error = str(error)
        return None
    status.rtt = monotonic() - asked
    status.server = session.server
    if document is not None:
        config, state = document["config"], document["state"]
        status.learn(config, state)
        status.differences = [str(each) for each in differences(stream.config, config, state)]
    return document


def _source_text(source: SourceLag) -> str:
    if source.error is not None:
        return f"{source.name}: {source.error}"
    behind = f"{counted(source.lag, 'message')} behind" if source.lag else "up to date"
    return f"{source.name}: {behind}, last contact {duration(round(source.silence or 0, 1))} ago"


def _positive(limit: int | None) -> int | None:
    return limit if limit is not None and limit > 0 else None


def _limit(limit: int | None) -> str:
    return ", no limit" if limit is None else f" of at most {limit:,}"
