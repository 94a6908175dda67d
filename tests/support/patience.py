"""Request timeouts that change while a test runs, and servers that stop answering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_nats.devserver import NatsServer
from tests.servers import eventually


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


def pause_when_idle(server: NatsServer, cache: Any) -> None:
    """Pause a server once it has answered all requests of a cache or counters.

    Some are sent in the background. If one of them ended by its timeout before the test sends its
    own, the server would count as away, and that one would not be sent.
    """
    assert eventually(lambda: not cache.session.waiters)
    server.pause()
