"""Request timeouts that change while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def hurry(cache: Any, seconds: float) -> None:
    """Set the timeout, in seconds, of the requests that a cache or counters will send.

    A test begins with a timeout that is not reached even on a busy machine. It sets a short one
    only while the server cannot answer.
    """
    stream = cache.bucket if hasattr(cache, "bucket") else cache.stream
    lanes = stream.stream.lanes
    lanes.reads.timeout = lanes.writes.timeout = seconds


@contextmanager
def hurried(cache: Any, seconds: float) -> Iterator[None]:
    """Set a timeout, in seconds, for the block. Restore the earlier one afterwards."""
    stream = cache.bucket if hasattr(cache, "bucket") else cache.stream
    before = stream.stream.lanes.reads.timeout
    hurry(cache, seconds)
    try:
        yield
    finally:
        hurry(cache, before)
