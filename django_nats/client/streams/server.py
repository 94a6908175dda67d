"""What streams need of the session with the server."""

from __future__ import annotations

from typing import Protocol

from ..protocol.steps import Lane, Request


class Server(Protocol):
    """What a stream needs of its session."""

    epoch: int
    """The number of the connection."""

    @property
    def epoch_of_requests(self) -> int:
        """The number of the connection on which a request is sent that is made now."""

    @property
    def connect_timeout(self) -> float:
        """Seconds within which the first operation fails if no server can be reached."""

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message, headers included."""

    @property
    def server(self) -> str:
        """The server's name and version."""

    def post(self, *requests: Request) -> None:
        """Send requests, each after the answer to the one before, without waiting for any."""

    def suspend(self, lane: Lane, fault: str) -> None:
        """Have the requests of a lane fail at once until a probe is answered."""
