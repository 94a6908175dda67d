"""What the configuration of any stream has, and what all streams of this package share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...exceptions import NatsError
from ...printable import duration

NANOSECONDS = 1_000_000_000
_DURATIONS = {"max_age", "duplicate_window", "subject_delete_marker_ttl"}


class StreamConfig(Protocol):
    """The configuration of a stream: a frozen dataclass made from settings."""

    @property
    def title(self) -> str:
        """The name of the stream in messages, such as "bucket web"."""

    @property
    def stream(self) -> str:
        """The stream's name on the server."""

    @property
    def api_prefix(self) -> str:
        """The beginning of the subjects of the JetStream API that has the stream."""

    @property
    def domain(self) -> str | None:
        """The JetStream domain that settings name, or None."""

    @property
    def description(self) -> str:
        """What the server's tools show for the stream."""

    @property
    def storage(self) -> str:
        """Where messages are stored: "memory" or "file"."""

    @property
    def replicas(self) -> int:
        """The number of servers that store the stream."""

    @property
    def max_bytes(self) -> int | None:
        """The largest size of the stream in bytes, or None for no limit."""

    @property
    def compression(self) -> str:
        """How the stream's files are compressed: "none" or "s2"."""

    @property
    def placement_cluster(self) -> str | None:
        """The cluster that stores the stream, or None for any."""

    @property
    def placement_tags(self) -> tuple[str, ...]:
        """Tags that the servers which store the stream must have."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Names and texts that settings attach to the stream, for the server's tools."""

    @property
    def reads(self) -> str:
        """Which replica answers reads: "any", or only the "leader"."""

    @property
    def subject_filter(self) -> str:
        """The filter of all subjects under which the stream stores what is published."""

    @property
    def named_by(self) -> str:
        """The option that names the stream."""

    @property
    def requirements(self) -> Sequence[Any]:
        """Each Requirement of an existing stream, in the order in which errors name them."""

    @property
    def mismatch(self) -> type[NatsError]:
        """The error for an existing stream that is something else."""

    @property
    def request_timeout(self) -> float:
        """Seconds for which a request may go without an answer."""

    @property
    def api_level(self) -> int:
        """The level of the JetStream API that the server must have.

        An older server would ignore the settings that it does not know.
        """

    @property
    def minimum_server(self) -> str:
        """The oldest version of nats-server that has what the stream needs."""

    @property
    def probe(self) -> str:
        """A subject of the stream under which nothing is ever stored."""

    def stream_config(self) -> dict[str, Any]:
        """Return the document that STREAM.CREATE and STREAM.UPDATE take."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The fields in which an existing stream is compared with that document."""

    def loses_data(self, name: str, before: Any, after: Any, state: Mapping[str, Any]) -> bool:
        """Return True if changing a field would make the server delete stored messages."""


def base_document(config: StreamConfig) -> dict[str, Any]:
    """Return the part of the document for STREAM.CREATE that all streams of this package share."""
    document: dict[str, Any] = {
        "name": config.stream,
        "description": config.description,
        "retention": "limits",
        "storage": config.storage,
        "num_replicas": config.replicas,
        "max_bytes": -1 if config.max_bytes is None else config.max_bytes,
        "compression": config.compression,
        "allow_direct": True,
        "deny_delete": True,  # deleting its last message would turn a counter back
    }
    placement: dict[str, Any] = {}
    if config.placement_cluster is not None:
        placement["cluster"] = config.placement_cluster
    if config.placement_tags:
        placement["tags"] = list(config.placement_tags)
    if placement:
        document["placement"] = placement
    if config.metadata:
        document["metadata"] = dict(config.metadata)
    return document


def is_below_stored(name: str, limit: Any, state: Mapping[str, Any]) -> bool:
    """Return True if a field is a limit below what a stream holds: the server would delete that."""
    used = {"max_bytes": "bytes", "max_msgs": "messages"}.get(name)
    return used is not None and limit != -1 and state.get(used, 0) > limit


def text_of(field: str, value: Any) -> str:
    """Return the value of a field of a stream's configuration, for people.

    >>> text_of("max_age", 900 * 10**9), text_of("storage", "file")
    ('15 min', "'file'")
    """
    if field in _DURATIONS and isinstance(value, int):
        return duration(value / NANOSECONDS) if value else "none"
    return repr(value)
