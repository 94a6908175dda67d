"""The statistics of a cache, and of pending increments of counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class CacheStats:
    """The state of a cache at one moment."""

    connected: bool
    """Whether this process is connected to a server."""
    server: str
    """The name and the version of the connected server."""
    bucket: str
    """The name of the bucket."""
    entries: int
    """The number of messages in the bucket. Recently deleted keys are included."""
    bytes: int
    """The size of these messages on the server."""
    hits: int
    """Reads of this process that found a value in the bucket."""
    misses: int
    """Reads of this process that found no value."""
    rtt: float | None
    """Seconds from the request to the server's answer. None if there was none."""


class Pending(NamedTuple):
    """The increments of this process that are not published yet, at one moment."""

    counters: int
    """The number of counters that have pending increments."""
    total: int
    """The sum of all pending increments."""
    age: float
    """The seconds for which the oldest increment may have been pending, at most."""
    error: str
    """The reason why the last attempt did not publish all of them, or an empty string."""
