"""What a cache can tell about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheStats:
    """A cache at one moment; hits and misses are this process's, for the bucket."""

    connected: bool
    server: str
    """Name and version of the connected server."""
    bucket: str
    entries: int
    """Messages in the bucket, those of recently deleted keys included."""
    bytes: int
    hits: int
    misses: int
    rtt: float
    """Seconds from the question to the server's answer."""
