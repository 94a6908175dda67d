"""A counter stream's configuration: how it is created, and what an existing stream must be.

Every subject of a counter stream is an integer that the server itself adds to (ADR-49). Settings
that would let the server drop increments are never used: per-message TTL, discard new, a limit of
messages. A limit of bytes is only for accounts that require one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...exceptions import CounterMismatch
from ..streams.api import DEFAULT_PREFIX
from ..streams.config import NANOSECONDS, base_document, is_below_stored

_WINDOW = 3
"""How many DEADLINEs the server remembers an increment's id for: a server that was stopped may pass
on late what it had received before."""
_SHORTEST_WINDOW_NS = NANOSECONDS // 10  # the server refuses less
_LEAST_WINDOW_S = 1.0
_NEARLY_FULL = 0.8


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

    compared: ClassVar[tuple[str, ...]] = (
        "subjects",
        "mirror",
        "sources",
        "retention",
        "description",
        "storage",
        "num_replicas",
        "max_msgs_per_subject",
        "max_age",
        "max_bytes",
        "max_msgs",
        "discard",
        "allow_direct",
        "allow_msg_counter",
        "deny_delete",
        "duplicate_window",
        "compression",
        "placement",
        "metadata",
    )
    api_level = 2
    minimum_server = "2.12.1"

    @property
    def title(self) -> str:
        """The name of the stream in messages."""
        return f"counter stream {self.stream}"

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
            document["subjects"] = [f"{self.prefix}.>"]
            window = max(_WINDOW * self.deadline, _LEAST_WINDOW_S)
            document["duplicate_window"] = int(window * NANOSECONDS)
        return document

    def require(self, existing: Mapping[str, Any]) -> None:
        """Raise CounterMismatch if an existing stream would count wrongly, or not at all.

        The error says what differs and what to do.
        """
        if not existing.get("allow_msg_counter"):
            raise CounterMismatch(
                f"The stream {self.stream} exists, but is not a counter stream: it was created "
                "without allow_msg_counter, which cannot be set later. Choose another STREAM."
            )
        wanted = _sum_of([each.document(self.prefix) for each in self.sources])
        found = _sum_of(existing.get("sources") or ())
        if found != wanted:
            raise CounterMismatch(
                f"The counter stream {self.stream} exists, but is {found}; settings say {wanted}. "
                "`manage.py nats setup` adds sources to a sum; otherwise correct SOURCES and "
                "PREFIX, or choose another STREAM."
            )
        subject = f"{self.prefix}.>"
        if not self.sources and subject not in (existing.get("subjects") or ()):
            raise CounterMismatch(
                f"The counter stream {self.stream} exists, but holds {existing.get('subjects')}, "
                f"not {subject!r}. Correct PREFIX, or choose another STREAM."
            )
        wrong = []
        if not existing.get("allow_direct"):
            wrong.append("allow_direct is off")
        window = existing.get("duplicate_window", 0) / NANOSECONDS
        if not self.sources and window < self.deadline:
            wrong.append(f"duplicate_window is {window:g} s, which is less than DEADLINE")
        if wrong:
            raise CounterMismatch(
                f"The counter stream {self.stream} exists, but cannot be relied on "
                f"({'; '.join(wrong)}). `manage.py nats setup` changes it, or choose another "
                "STREAM."
            )

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
