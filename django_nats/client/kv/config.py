"""A bucket's configuration: the stream it is created as, and what an existing stream must be.

A bucket is a stream that every NATS client recognises as a key-value bucket (ADR-8), with the
settings that a cache needs: one message per key (with more, the value before would come back when a
value expires), direct gets, and per-message TTL (ADR-43).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ...exceptions import BucketMismatch
from ..streams.api import DEFAULT_PREFIX
from ..streams.config import NANOSECONDS, base_document, is_below_stored
from ..streams.requirements import MIRROR, SHARED, Requirement, never, origin

MIB = 1024 * 1024
MINIMUM_SERVERS = {1: "2.11.8", 2: "2.12.0"}
"""The oldest server for each level of the JetStream API that is fit for a cache."""
DEFAULT_MAX_VALUE_SIZE = MIB


class Republish(NamedTuple):
    """What the server publishes again, under other subjects, of what it stores in a bucket."""

    src: str
    """A filter of subjects."""
    dest: str
    """What they become: a subject mapping."""
    headers_only: bool = False


REQUIREMENTS = (
    MIRROR,
    Requirement(
        "sources",
        None,
        "other streams write into it",
        fixed=never("a stream with sources was not created for a cache"),
        is_foreign=lambda config, value: (
            "is not a key-value bucket of its own: it takes over what is stored in "
            f"{', '.join(map(origin, value))}"
        ),
    ),
    Requirement(
        "subjects",
        None,
        "keys are stored elsewhere, or it holds more than keys",
        holds=lambda config, value: value == [config.subject_filter],
        fixed=never("the stream belongs to another program"),
        is_foreign=lambda config, value: (
            f"is not a key-value bucket: it holds {value}, not {[config.subject_filter]}"
        ),
    ),
    *SHARED,
    Requirement(
        "max_msgs_per_subject",
        1,
        "the value before would come back when a value expires",
        default=-1,
    ),
    Requirement("discard_new_per_subject", False, "a key that has a value cannot be given another"),
    Requirement(
        "allow_msg_counter",
        False,
        "the server stores nothing but counters",
        fixed=never("the server does not make a stream of counters another"),
    ),
    Requirement("allow_rollup_hdrs", True, "keys cannot be deleted", default=False),
    Requirement("allow_msg_ttl", True, "values do not expire on the server", default=False),
)


@dataclass(frozen=True)
class BucketConfig:
    """The configuration of a bucket. Sizes are in bytes, headers included."""

    name: str
    storage: str = "memory"
    replicas: int = 1
    max_bytes: int | None = None
    max_entries: int | None = None
    max_value_size: int = DEFAULT_MAX_VALUE_SIZE
    evict: bool = True
    persist: str = "sync"
    compression: str = "none"
    placement_cluster: str | None = None
    placement_tags: tuple[str, ...] = ()
    description: str = "Django cache"
    metadata: tuple[tuple[str, str], ...] = ()
    api_prefix: str = DEFAULT_PREFIX
    domain: str | None = None
    republish: Republish | None = None
    reads: str = "any"
    """Which replica answers reads: "any", or only the "leader"."""
    request_timeout: float = 1.0
    """Seconds."""

    compared: ClassVar[tuple[str, ...]] = (
        "description",
        "storage",
        "num_replicas",
        "max_msgs_per_subject",
        "max_age",
        "max_bytes",
        "max_msgs",
        "max_msg_size",
        "discard",
        "compression",
        "persist_mode",
        "placement",
        "metadata",
        "republish",
    )
    requirements: ClassVar[tuple[Requirement, ...]] = REQUIREMENTS
    mismatch: ClassVar[type[BucketMismatch]] = BucketMismatch
    named_by: ClassVar[str] = "BUCKET"

    @property
    def api_level(self) -> int:
        """The level of the JetStream API that the server must have."""
        return 2 if self.persist == "async" else 1

    @property
    def minimum_server(self) -> str:
        """The oldest version of nats-server that has what the bucket needs."""
        return MINIMUM_SERVERS[self.api_level]

    @property
    def title(self) -> str:
        """The name of the stream in messages."""
        return f"bucket {self.name}"

    @property
    def stream(self) -> str:
        """The name of the stream on the server."""
        return f"KV_{self.name}"

    @property
    def subject_filter(self) -> str:
        """The filter of all subjects under which values are stored."""
        return f"$KV.{self.name}.>"

    @property
    def probe(self) -> str:
        """A subject under which nothing is ever stored."""
        return f"$KV.{self.name}.=probe"

    def stream_config(self) -> dict[str, Any]:
        """Return the document that STREAM.CREATE and STREAM.UPDATE take."""
        document: dict[str, Any] = {
            **base_document(self),
            "subjects": [self.subject_filter],
            "max_msgs_per_subject": 1,
            "max_age": 0,
            "max_msgs": -1 if self.max_entries is None else self.max_entries,
            # Under discard old, a message larger than max_bytes is acknowledged, and then
            # empties the bucket.
            "max_msg_size": self.max_value_size,
            "discard": "old" if self.evict else "new",
            # The server keeps every id of the window in memory, at 290 bytes each. A few seconds
            # are enough to recognise a retry; the default is two minutes.
            "duplicate_window": int(max(5.0, 3 * self.request_timeout) * NANOSECONDS),
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
        }
        if self.persist == "async":
            document["persist_mode"] = "async"
        if self.republish is not None:
            document["republish"] = self.republish._asdict()
        return document

    def loses_data(self, name: str, before: Any, after: Any, state: Mapping[str, Any]) -> bool:
        """Return True if changing a field would make the server delete stored values."""
        if name == "max_msgs_per_subject":
            # No cache stores older revisions: another program may want them.
            return bool(state.get("messages", 0) > state.get("num_subjects", 0))
        return is_below_stored(name, after, state)
