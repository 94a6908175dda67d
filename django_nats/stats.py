"""What a cache, and counters, can tell about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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


class Pending(NamedTuple):
    """Increments of a process that are still to be published, at one moment."""

    counters: int
    """How many counters have some."""
    total: int
    """What all of them together will be changed by."""
    age: float
    """Seconds for which the oldest may have waited."""
    error: str
    """Why the last try left some of them, or an empty string."""
