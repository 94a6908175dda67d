"""Change, while a test runs, how long its requests wait for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def hurry(cache: Any, seconds: float) -> None:
    """Give a cache, or counters, another timeout for the requests sent from now on, in seconds.

    A test sets up with a timeout that no busy machine reaches, and uses a short one only while
    the server cannot answer.
    """
    stream = cache.bucket if hasattr(cache, "bucket") else cache.stream
    lanes = stream.stream.lanes
    lanes.reads.timeout = lanes.writes.timeout = seconds


@contextmanager
def hurried(cache: Any, seconds: float) -> Iterator[None]:
    """Use another timeout inside the block, in seconds, and restore the first one after it."""
    stream = cache.bucket if hasattr(cache, "bucket") else cache.stream
    before = stream.stream.lanes.reads.timeout
    hurry(cache, seconds)
    try:
        yield
    finally:
        hurry(cache, before)
