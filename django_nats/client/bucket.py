"""A bucket's configuration: the stream it is made as, and how it differs from one that exists.

A bucket is a stream that every NATS client recognises as a key-value bucket (ADR-8), with the
settings a cache needs: one message a key (with more, an expired value would bring back the one
before), direct gets, and per-message TTL (ADR-43).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..exceptions import BucketMismatch

NANOSECONDS = 1_000_000_000
MIB = 1024 * 1024
MINIMUM_SERVERS = {1: "2.11.8", 2: "2.12.0"}
"""The server by which each level of the JetStream API came, or became fit for a cache."""
DEFAULT_MAX_VALUE_SIZE = MIB


@dataclass(frozen=True)
class BucketConfig:
    """What settings say of a bucket. Sizes are in bytes, headers included."""

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
    reads: str = "any"
    """"any" replica may answer, or only the "leader"."""
    request_timeout: float = 1.0
    """Seconds."""

    @property
    def api_level(self) -> int:
        """The level of the JetStream API that the server must have; an older one would ignore
        what it does not know."""
        return 2 if self.persist == "async" else 1

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"

    def stream_config(self) -> dict[str, Any]:
        """The document STREAM.CREATE and STREAM.UPDATE take."""
        document: dict[str, Any] = {
            "name": self.stream,
            "description": self.description,
            "subjects": [f"$KV.{self.name}.>"],
            "retention": "limits",
            "storage": self.storage,
            "num_replicas": self.replicas,
            "max_msgs_per_subject": 1,
            "max_age": 0,
            "max_bytes": -1 if self.max_bytes is None else self.max_bytes,
            "max_msgs": -1 if self.max_entries is None else self.max_entries,
            # Under discard old, a message larger than max_bytes is acknowledged, and then
            # empties the bucket.
            "max_msg_size": self.max_value_size,
            "discard": "old" if self.evict else "new",
            "compression": self.compression,
            # The server keeps every id of the window in memory: a few seconds are enough to
            # recognise a retry, and two minutes (the default) cost 290 bytes an id.
            "duplicate_window": int(max(5.0, 3 * self.request_timeout) * NANOSECONDS),
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }
        if self.persist == "async":
            document["persist_mode"] = "async"
        placement: dict[str, Any] = {}
        if self.placement_cluster is not None:
            placement["cluster"] = self.placement_cluster
        if self.placement_tags:
            placement["tags"] = list(self.placement_tags)
        if placement:
            document["placement"] = placement
        return document


class Difference(NamedTuple):
    """One field in which an existing stream is not what settings say."""

    field: str
    existing: Any
    wanted: Any
    fixable: bool
    """Whether the server can change it in place without losing data."""

    def __str__(self) -> str:
        return f"{self.field}: {self.existing!r} on the server, {self.wanted!r} in settings"


# What the server refuses to change on an existing stream, or what makes it another's stream.
_FIXED = {"subjects", "mirror", "sources", "retention", "storage", "persist_mode"}
_COMPARED = (
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
    "max_msg_size",
    "discard",
    "compression",
    "allow_direct",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "persist_mode",
    "placement",
)
_DEFAULTS: dict[str, Any] = {"persist_mode": "default", "placement": None, "compression": "none"}


def differences(
    config: BucketConfig, existing: Mapping[str, Any], state: Mapping[str, Any]
) -> list[Difference]:
    """How an existing stream's config differs from settings; its state tells what would be lost.

    >>> wanted = BucketConfig("web")
    >>> differences(wanted, wanted.stream_config() | {"discard": "new"}, {})
    [Difference(field='discard', existing='new', wanted='old', fixable=True)]
    """
    wanted = config.stream_config()
    found = []
    for name in _COMPARED:
        default = _DEFAULTS.get(name, False if name.startswith("allow") else None)
        before, after = existing.get(name, default), wanted.get(name, default)
        if isinstance(before, Mapping):
            before = {key: value for key, value in before.items() if value}
        if before != after:
            fixable = name not in _FIXED and not _loses_data(name, after, state)
            found.append(Difference(name, before, after, fixable))
    return found


def _loses_data(name: str, limit: Any, state: Mapping[str, Any]) -> bool:
    """Whether a lower limit would make the server throw away what is stored."""
    if name == "max_msgs_per_subject":
        # Older revisions: no cache wrote them, so they are somebody's who may want them.
        return bool(state.get("messages", 0) > state.get("num_subjects", 0))
    used = {"max_bytes": "bytes", "max_msgs": "messages"}.get(name)
    return used is not None and limit != -1 and state.get(used, 0) > limit


def require_bucket(config: BucketConfig, existing: Mapping[str, Any]) -> None:
    """Refuse a stream that would serve wrongly as a bucket.

    Raises BucketMismatch, which says what differs and what to do.
    """
    subjects = [f"$KV.{config.name}.>"]
    if existing.get("subjects") != subjects or existing.get("mirror") or existing.get("sources"):
        raise BucketMismatch(
            f"The stream {config.stream} exists, but is no key-value bucket: it holds "
            f"{existing.get('subjects')}, not {subjects}. Choose another BUCKET."
        )
    wrong = [
        f"{name} is {existing.get(name, default)!r}, not {wanted!r}"
        for name, wanted, default in (
            ("max_msgs_per_subject", 1, -1),
            ("allow_direct", True, False),
            ("allow_rollup_hdrs", True, False),
            ("allow_msg_ttl", True, False),
        )
        if existing.get(name, default) != wanted
    ]
    if wrong:
        raise BucketMismatch(
            f"The bucket {config.name} exists, but was made without what a cache needs "
            f"({'; '.join(wrong)}). `manage.py nats setup` changes it, or choose another BUCKET."
        )
