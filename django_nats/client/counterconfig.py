"""A counter stream's configuration: the stream it is made as, and what one that exists must be.

Every subject of a counter stream is an integer that the server itself adds to (ADR-49). What would
let the server drop increments is never set: per-message TTL, discard new, limits of the whole
stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..exceptions import CounterMismatch
from .streamconfig import NANOSECONDS

_WINDOW = 3
"""Deadlines for which the server remembers an increment's id: a stopped server may pass on late
what it took before it stopped."""
_SHORTEST_WINDOW = NANOSECONDS // 10
_LEAST_WINDOW = 1.0  # seconds; the server refuses less than a tenth of one


@dataclass(frozen=True)
class SourceConfig:
    """A counter stream that is added up in another."""

    stream: str
    prefix: str
    api_prefix: str | None = None
    """What another account or JetStream domain answers to, instead of $JS.API."""
    deliver_prefix: str | None = None

    @property
    def in_another_account(self) -> bool:
        return self.api_prefix is not None and not self.api_prefix.startswith("$JS.")

    def document(self, prefix: str) -> dict[str, Any]:
        """A member of the ``sources`` of the stream that has its counters under a prefix."""
        document: dict[str, Any] = {
            "name": self.stream,
            # Where the server no longer knows how far it was, it would begin at the time of the
            # sum's latest message, and leave out what was counted before and arrives late.
            "opt_start_seq": 1,
            "subject_transforms": [{"src": f"{self.prefix}.>", "dest": f"{prefix}.>"}],
        }
        if self.api_prefix is not None:
            document["external"] = {"api": self.api_prefix, "deliver": self.deliver_prefix or ""}
        return document


@dataclass(frozen=True)
class CounterConfig:
    """What settings say of a counter stream."""

    stream: str = "COUNTERS"
    prefix: str = "counters"
    """What all subjects of the stream begin with, before a dot and the counter's own."""
    storage: str = "file"
    replicas: int = 1
    history: int = 8
    """Messages kept of every counter: after a restart of a lone server, what tells it which of
    the latest increments it has already applied."""
    max_age: float | None = None
    """Seconds without an increment after which a counter is forgotten."""
    deadline: float = 10.0
    """Seconds for which an increment goes on trying."""
    request_timeout: float = 1.0
    """Seconds."""
    sources: tuple[SourceConfig, ...] = ()
    """The streams of which this one is the sum."""
    description: str = "Django counters"

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
    )
    api_level = 2
    minimum_server = "2.12.1"

    @property
    def title(self) -> str:
        return f"counter stream {self.stream}"

    @property
    def probe(self) -> str:
        return f"{self.prefix}.=probe"

    def stream_config(self) -> dict[str, Any]:
        """The document STREAM.CREATE and STREAM.UPDATE take."""
        document: dict[str, Any] = {
            "name": self.stream,
            "description": self.description,
            "retention": "limits",
            "storage": self.storage,
            "num_replicas": self.replicas,
            "max_msgs_per_subject": self.history,
            "max_age": int((self.max_age or 0) * NANOSECONDS),
            "max_bytes": -1,
            "max_msgs": -1,
            "discard": "old",
            "allow_direct": True,
            "allow_msg_counter": True,
            # Deleting its last message would turn a counter back.
            "deny_delete": True,
        }
        if self.sources:
            # Without subjects of its own, so that nobody increments a sum, and with the shortest
            # of windows (without one, 2.12.1 takes two minutes): what arrives again brings its
            # source's total, and to drop that would leave the sum at an older one.
            document["sources"] = [each.document(self.prefix) for each in self.sources]
            document["duplicate_window"] = _SHORTEST_WINDOW
        else:
            document["subjects"] = [f"{self.prefix}.>"]
            window = max(_WINDOW * self.deadline, _LEAST_WINDOW)
            document["duplicate_window"] = int(window * NANOSECONDS)
        return document

    def require(self, existing: Mapping[str, Any]) -> None:
        """Refuse a stream that would count wrongly, or not at all.

        Raises CounterMismatch, which says what differs and what to do.
        """
        if not existing.get("allow_msg_counter"):
            raise CounterMismatch(
                f"The stream {self.stream} exists, but is no counter stream: it was made without "
                "allow_msg_counter, which cannot be set later. Choose another STREAM."
            )
        wanted = _sum_of([each.document(self.prefix) for each in self.sources])
        found = _sum_of(existing.get("sources") or ())
        if found != wanted:
            raise CounterMismatch(
                f"The counter stream {self.stream} exists, but is {found}, and in settings "
                f"{wanted}. `manage.py nats setup` adds sources to a sum; else correct SOURCES and "
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
        """Whether a change of a field would make the server throw away counts.

        A shorter history does not: every message tells the whole total.
        """
        if name == "sources":
            wanted = set(map(_source, after or ()))
            return not wanted.issuperset(map(_source, before or ()))
        shorter = name == "max_age" and after and not 0 < before <= after
        return bool(shorter and state.get("messages", 0))


def _sum_of(sources: Sequence[Mapping[str, Any]]) -> str:
    """What members of a stream's ``sources`` make of it."""
    if not sources:
        return "no sum of others"
    return f"the sum of {', '.join(sorted(map(_source, sources)))}"


def _source(document: Mapping[str, Any]) -> str:
    told = str(document["name"])
    external = document.get("external") or {}
    if api_prefix := external.get("api"):
        told += f" at {api_prefix}"
    transforms = document.get("subject_transforms") or ()
    subjects = [f"{each['src']} as {each['dest']}" for each in transforms]
    return f"{told} ({', '.join(subjects)})" if subjects else told
