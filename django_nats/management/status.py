"""``manage.py nats status``: what the project keeps on NATS, and whether it can be reached."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import NatsCache, nats_caches
from ..checks.streams import Kept, of_caches, of_counters
from ..client import bridge
from ..client.differences import differences
from ..client.sources import SourceLag, lags_of
from ..client.streamconfig import NANOSECONDS
from ..conf.counters import counter_aliases, counter_settings
from ..exceptions import NatsError
from .subcommand import NOTHING, Subcommand


@dataclass(kw_only=True)
class StreamStatus(ABC):
    """What an alias keeps at one moment; sizes are in bytes, a limit of None is none."""

    alias: str
    servers: str
    error: str | None = None
    """Why nothing is known of the rest."""
    server: str | None = None
    """Name and version of the connected server."""
    rtt: float | None = None
    """Seconds from a question to the server's answer."""
    exists: bool = False
    """Whether there is a stream; it is made on first use."""
    storage: str | None = None
    replicas: int | None = None
    bytes: int = 0
    differences: list[str] = field(default_factory=list)
    """In what the stream is not what settings say."""

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.exists = True
        self.storage = config["storage"]
        self.replicas = config["num_replicas"]
        self.bytes = state["bytes"]

    @abstractmethod
    def lines(self) -> list[tuple[str, str]]:
        """What to tell of a stream that exists, beside its server, storage and differences."""


@dataclass(kw_only=True)
class CacheStatus(StreamStatus):
    """An alias of CACHES."""

    bucket: str
    entries: int = 0
    """Messages in the bucket, those of recently deleted keys included."""
    max_entries: int | None = None
    max_bytes: int | None = None
    max_value_size: int | None = None
    near_cache: list[str] = field(default_factory=list)
    """Patterns of the keys of which each process keeps copies; none without NEAR_CACHE."""
    follows: list[str] = field(default_factory=list)
    """Subjects whose changes the server tells each of those processes."""

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        super().learn(config, state)
        self.entries = state["messages"]
        self.max_entries = _positive(config.get("max_msgs"))
        self.max_bytes = _positive(config.get("max_bytes"))
        self.max_value_size = _positive(config.get("max_msg_size"))

    def lines(self) -> list[tuple[str, str]]:
        lines = [
            ("entries", f"{self.entries:,} {_limit(self.max_entries)}"),
            ("bytes", f"{self.bytes:,} {_limit(self.max_bytes)}"),
        ]
        if self.max_value_size is not None:
            lines.append(("values", f"up to {self.max_value_size:,} bytes each"))
        if self.near_cache:
            lines.append(
                ("near", f"copies of {', '.join(self.near_cache)}, by {', '.join(self.follows)}")
            )
        return lines


@dataclass(kw_only=True)
class CounterStatus(StreamStatus):
    """An alias of NATS_COUNTERS."""

    stream: str
    counters: int = 0
    messages: int = 0
    """Messages in the stream, up to ``history`` for each counter."""
    history: int | None = None
    max_age: float | None = None
    """Seconds without an increment after which a counter is forgotten."""
    sources: list[SourceLag] = field(default_factory=list)

    def learn(self, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        super().learn(config, state)
        self.counters = state.get("num_subjects", 0)
        self.messages = state["messages"]
        self.history = _positive(config.get("max_msgs_per_subject"))
        age = _positive(config.get("max_age"))
        self.max_age = None if age is None else age / NANOSECONDS

    def lines(self) -> list[tuple[str, str]]:
        kept = "until reset"
        if self.max_age is not None:
            kept = f"for {self.max_age:,.12g} s after its last change"
        most = "no limit" if self.history is None else f"up to {self.history:,}"
        lines = [
            ("counters", f"{self.counters:,}, each kept {kept}"),
            ("messages", f"{self.messages:,}, {most} for each counter"),
            ("bytes", f"{self.bytes:,}"),
        ]
        return [*lines, *(("source", _keeping_up(each)) for each in self.sources)]


class Status(Subcommand):
    """Creates and changes nothing. The exit status is 1 when a stream cannot be asked about."""

    name = "status"
    help = "Show the servers and streams of CACHES and NATS_COUNTERS, and their state."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")

    def handle(self, options: Mapping[str, Any]) -> None:
        known = nats_caches()
        caches = {kept: _of_cache(kept, known[kept.alias]) for kept in of_caches(known)}
        aliases = {alias: counter_settings(alias) for alias in counter_aliases()}
        counters = {kept: _of_counters(kept) for kept in of_counters(aliases)}
        if options["json"]:
            document = {
                "caches": [asdict(each) for each in caches.values()],
                "counters": [
                    {**asdict(each), "sources": [lag._asdict() for lag in each.sources]}
                    for each in counters.values()
                ],
            }
            self.stdout.write(json.dumps(document, indent=2))
        found = {**caches, **counters}
        if not options["json"]:
            for kept, status in found.items():
                self._show(kept, status)
        away = dict.fromkeys(each.alias for each in found.values() if each.error is not None)
        if away:
            raise CommandError(f"No answer for {', '.join(away)}.")
        if not found:
            raise CommandError(NOTHING)

    def _show(self, kept: Kept, status: StreamStatus) -> None:
        style = self.style
        self.stdout.write(f"{status.alias}: {kept.title} on {status.servers}")
        if status.error is not None:
            self.stdout.write(style.ERROR(f"  {status.error}"))
            return
        rtt = (status.rtt or 0) * 1000
        self.stdout.write(f"  server   {status.server}, {rtt:.2f} ms there and back")
        if not status.exists:
            self.stdout.write("  absent: made on first use, or by `manage.py nats setup`")
            return
        self.stdout.write(f"  storage  {status.storage}, replicas: {status.replicas}")
        for name, text in status.lines():
            self.stdout.write(f"  {name:8} {text}")
        for each in status.differences:
            self.stdout.write(style.WARNING(f"  differs  {each}"))
        if status.differences:
            self.stdout.write("  `manage.py nats setup --plan` tells what can be done about that")


def _of_cache(kept: Kept, cache: NatsCache) -> CacheStatus:
    status = CacheStatus(
        alias=kept.alias, servers=kept.connection.where, bucket=kept.stream.config.name
    )
    near, wanted = cache.near, cache._config.near_cache
    if near is not None and wanted is not None:
        status.near_cache = list(wanted.keys)
        status.follows = list(near.subjects)
    _ask(kept, status)
    return status


def _of_counters(kept: Kept) -> CounterStatus:
    config = kept.stream.config
    status = CounterStatus(alias=kept.alias, servers=kept.connection.where, stream=config.stream)
    if (document := _ask(kept, status)) is not None:
        status.sources = lags_of(document, config.sources)
    return status


def _ask(kept: Kept, status: StreamStatus) -> Mapping[str, Any] | None:
    stream, session = kept.stream, kept.session
    try:
        # Twice, since the first answer may have taken the time of connecting, too.
        bridge.run(session, stream.info())
        asked = monotonic()
        document = bridge.run(session, stream.info())
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


def _keeping_up(source: SourceLag) -> str:
    if source.error is not None:
        return f"{source.name}: {source.error}"
    behind = f"{source.lag:,} messages behind" if source.lag else "up to date"
    return f"{source.name}: {behind}, heard of {source.silence:.1f} s ago"


def _positive(limit: int | None) -> int | None:
    return limit if limit is not None and limit > 0 else None


def _limit(limit: int | None) -> str:
    return "without limit" if limit is None else f"of at most {limit:,}"
