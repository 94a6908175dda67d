"""A counter stream's configuration: how it is created, and what an existing stream must be.

Every subject of a counter stream is an integer that the server itself adds to (ADR-49). Settings
that would let the server drop increments are never used: per-message TTL, discard new, a limit of
messages. A limit of bytes is only for accounts that require one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...exceptions import CounterMismatch
from ..streams.api import DEFAULT_PREFIX
from ..streams.config import NANOSECONDS, base_document, is_below_stored
from ..streams.requirements import MIRROR, SHARED, Requirement, never

_WINDOW = 3
"""How many DEADLINEs the server remembers an increment's id for: a server that was stopped may pass
on late what it had received before."""
_SHORTEST_WINDOW_NS = NANOSECONDS // 10  # the server refuses less
_LEAST_WINDOW_S = 1.0
_NEARLY_FULL = 0.8
_LARGEST_INCREMENT = 1024
"""Bytes that an increment of a total with a few hundred digits has, with its headers."""


@dataclass(frozen=True)
class SourceConfig:
    """A counter stream whose counters are added up in another stream."""

    stream: str
    prefix: str
    api_prefix: str | None = None
    """The prefix of the JetStream API of another account or domain, instead of $JS.API."""
    deliver_prefix: str | None = None

    @property
    def in_another_account(self) -> bool:
        """Whether the stream is reached through an import from another account."""
        return self.api_prefix is not None and not self.api_prefix.startswith("$JS.")

    def document(self, prefix: str) -> dict[str, Any]:
        """Return a member of the ``sources`` of the stream that keeps the sums under a prefix."""
        document: dict[str, Any] = {
            "name": self.stream,
            # A server that no longer knows how far it has read would begin at the time of the sum's
            # latest message, and leave out what was counted before that and arrives late.
            "opt_start_seq": 1,
            "subject_transforms": [{"src": f"{self.prefix}.>", "dest": f"{prefix}.>"}],
        }
        if self.api_prefix is not None:
            document["external"] = {"api": self.api_prefix, "deliver": self.deliver_prefix or ""}
        return document


def _sum_of(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return in words what a stream with these ``sources`` is."""
    if not sources:
        return "not a sum"
    return f"the sum of {', '.join(sorted(map(_source, sources)))}"


def _source(document: Mapping[str, Any]) -> str:
    text = str(document["name"])
    external = document.get("external") or {}
    if api_prefix := external.get("api"):
        text += f" at {api_prefix}"
    transforms = document.get("subject_transforms") or ()
    subjects = [f"{each['src']} as {each['dest']}" for each in transforms]
    return f"{text} ({', '.join(subjects)})" if subjects else text


def _is_sum_as_set(config: CounterConfig, sources: Sequence[Mapping[str, Any]] | None) -> bool:
    return _sum_of(sources or ()) == _sum_of(_documents(config))


def _documents(config: CounterConfig) -> list[dict[str, Any]]:
    return [each.document(config.prefix) for each in config.sources]


def _lives_long_enough(config: CounterConfig, max_age: int) -> bool:
    return not max_age or max_age >= (config.max_age or math.inf) * NANOSECONDS


def _remembers_long_enough(config: CounterConfig, window: int) -> bool:
    return bool(config.sources) or window >= config.deadline * NANOSECONDS


REQUIREMENTS = (
    MIRROR,
    Requirement(
        "allow_msg_counter",
        True,
        "the server does not add",
        default=False,
        fixed=never("the server does not make another stream one of counters"),
        is_foreign=lambda config, value: (
            "is not a counter stream: it was created without allow_msg_counter, which cannot be "
            "set later"
        ),
    ),
    Requirement(
        "sources",
        None,
        "totals are sums of others than SOURCES says",
        holds=_is_sum_as_set,
        is_foreign=lambda config, value: (
            f"is {_sum_of(value or ())}; settings say {_sum_of(_documents(config))}"
        ),
        advice="`manage.py nats setup` adds sources to a sum; otherwise correct SOURCES and PREFIX",
    ),
    Requirement(
        "subjects",
        None,
        "increments do not reach it",
        holds=lambda config, value: bool(config.sources or config.subject_filter in (value or ())),
        fixed=never("the stream belongs to another program"),
        is_foreign=lambda config, value: f"holds {value}, not {config.subject_filter!r}",
        advice="correct PREFIX",
    ),
    *SHARED,
    Requirement(
        "persist_mode",
        "default",
        "increments that were acknowledged are lost if a server is killed",
        default="default",
        fixed=never("the server does not change how a stream is persisted"),
    ),
    Requirement(
        "max_msgs",
        -1,
        "beyond that, counters restart at 0",
        default=-1,
        holds=lambda config, value: value <= 0,
    ),
    Requirement("max_age", 0, "counters restart at 0 earlier", default=0, holds=_lives_long_enough),
    Requirement(
        "duplicate_window",
        0,
        "an increment that is repeated until DEADLINE may count twice",
        default=0,
        holds=_remembers_long_enough,
    ),
    Requirement(
        "max_msg_size",
        -1,
        "increments are refused",
        default=-1,
        holds=lambda config, value: not 0 < value < _LARGEST_INCREMENT,
    ),
    Requirement(
        "subject_delete_marker_ttl",
        0,
        "counters do not expire after MAX_AGE",
        default=0,
        holds=lambda config, value: not (value and config.max_age),
        fixed=never("the server changes no counter stream that has delete markers"),
    ),
)


@dataclass(frozen=True)
class CounterConfig:
    """The configuration of a counter stream."""

    stream: str = "COUNTERS"
    prefix: str = "counters"
    """The beginning of all subjects of the stream, before a dot and the counter's own part."""
    storage: str = "file"
    replicas: int = 1
    history: int = 8
    """Messages kept for each counter. After a restart, a lone server finds in them which of the
    latest increments it has already applied."""
    max_age: float | None = None
    """Seconds without an increment after which the server deletes a counter."""
    deadline: float = 10.0
    """Seconds for which an increment is repeated."""
    request_timeout: float = 1.0
    """Seconds for which a request may go without an answer."""
    sources: tuple[SourceConfig, ...] = ()
    """The streams of which this one is the sum."""
    max_bytes: int | None = None
    """Beyond this size, the server deletes the messages that were stored longest ago, and with a
    counter's last message the counter."""
    compression: str = "none"
    placement_cluster: str | None = None
    placement_tags: tuple[str, ...] = ()
    description: str = "Django counters"
    metadata: tuple[tuple[str, str], ...] = ()
    api_prefix: str = DEFAULT_PREFIX
    domain: str | None = None
    reads: str = "any"
    """Which replica answers reads: "any", or only the "leader"."""
    is_timed: bool = False
    """Whether users of the stream need the server's time."""

    compared: ClassVar[tuple[str, ...]] = (
        "sources",
        "description",
        "storage",
        "num_replicas",
        "max_msgs_per_subject",
        "max_age",
        "max_bytes",
        "max_msgs",
        "discard",
        "deny_delete",
        "duplicate_window",
        "compression",
        "placement",
        "metadata",
    )
    requirements: ClassVar[tuple[Requirement, ...]] = REQUIREMENTS
    mismatch: ClassVar[type[CounterMismatch]] = CounterMismatch
    named_by: ClassVar[str] = "STREAM"
    api_level = 2
    minimum_server = "2.12.1"

    @property
    def title(self) -> str:
        """The name of the stream in messages."""
        return f"counter stream {self.stream}"

    @property
    def subject_filter(self) -> str:
        """The filter of all subjects under which counters are stored."""
        return f"{self.prefix}.>"

    @property
    def probe(self) -> str:
        """A subject under which nothing is ever stored."""
        return f"{self.prefix}.=probe"

    def stream_config(self) -> dict[str, Any]:
        """Return the document that STREAM.CREATE and STREAM.UPDATE take."""
        document: dict[str, Any] = {
            **base_document(self),
            "max_msgs_per_subject": self.history,
            "max_age": int((self.max_age or 0) * NANOSECONDS),
            "max_msgs": -1,
            "discard": "old",
            "allow_msg_counter": True,
        }
        if self.sources:
            # Without subjects of its own, a sum cannot be incremented. With the shortest window
            # (2.12.1 would take two minutes), a message that arrives again is not dropped: it
            # brings its source's total, and the sum would stay at an older one.
            document["sources"] = [each.document(self.prefix) for each in self.sources]
            document["duplicate_window"] = _SHORTEST_WINDOW_NS
        else:
            document["subjects"] = [self.subject_filter]
            window = max(_WINDOW * self.deadline, _LEAST_WINDOW_S)
            document["duplicate_window"] = int(window * NANOSECONDS)
        return document

    def loses_data(self, name: str, before: Any, after: Any, state: Mapping[str, Any]) -> bool:
        """Return True if changing a field would make the server delete counters.

        A shorter history does not: every message holds the whole total.
        """
        if name == "sources":
            wanted = set(map(_source, after or ()))
            return not wanted.issuperset(map(_source, before or ()))
        shorter = name == "max_age" and after and not 0 < before <= after
        return bool(shorter and state.get("messages", 0)) or is_below_stored(name, after, state)


def nearly_full(existing: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """Return in words how full a stream is that may soon lose counters; None for another."""
    limit = existing.get("max_bytes", -1)
    if limit <= 0 or state["bytes"] < _NEARLY_FULL * limit:
        return None
    return (
        f"{state['bytes'] / limit:.0%} of MAX_BYTES are used. When all are, the counters that were "
        "not changed for the longest time restart at 0"
    )
