"""What the configuration of any stream has, and what all streams of this package share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

NANOSECONDS = 1_000_000_000


class StreamConfig(Protocol):
    """The configuration of a stream: a frozen dataclass made from settings."""

    @property
    def title(self) -> str:
        """The name of the stream in messages, such as "bucket web"."""

    @property
    def stream(self) -> str:
        """The stream's name on the server."""

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

    def require(self, existing: Mapping[str, Any]) -> None:
        """Raise an error that says what to do if an existing stream cannot serve."""


def base_document(config: StreamConfig) -> dict[str, Any]:
    """Return the part of the document for STREAM.CREATE that all streams of this package share."""
    return {
        "name": config.stream,
        "description": config.description,
        "retention": "limits",
        "storage": config.storage,
        "num_replicas": config.replicas,
        "allow_direct": True,
        "deny_delete": True,  # deleting its last message would turn a counter back
    }
