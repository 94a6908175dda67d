"""What a stream's configuration must tell, whatever the stream holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

NANOSECONDS = 1_000_000_000


class StreamConfig(Protocol):
    """A frozen dataclass made of settings."""

    @property
    def title(self) -> str:
        """What messages call the stream, such as "bucket web"."""

    @property
    def stream(self) -> str: ...

    @property
    def replicas(self) -> int: ...

    @property
    def request_timeout(self) -> float:
        """Seconds."""

    @property
    def api_level(self) -> int:
        """The level of the JetStream API that the server must have; an older one would ignore
        what it does not know."""

    @property
    def minimum_server(self) -> str:
        """The first version of the server that has what the stream needs."""

    @property
    def probe(self) -> str:
        """A subject of the stream on which nothing is ever stored."""

    def stream_config(self) -> dict[str, Any]:
        """The document STREAM.CREATE and STREAM.UPDATE take."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The fields of that document, and some that it may lack, in which a stream must agree."""

    def loses_data(self, name: str, before: Any, after: Any, state: Mapping[str, Any]) -> bool:
        """Whether a change of a field would make the server throw away what is stored."""

    def require(self, existing: Mapping[str, Any]) -> None:
        """Refuse a stream that exists but cannot serve; the error says what to do."""
