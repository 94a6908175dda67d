"""Run every scenario twice: through the sync methods and through their async versions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.client.kv.entry import Entry, Write
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import parse_api
from django_nats.keys import encode
from tests.conftest import MakeCache, api


class Awaited:
    """A cache whose methods call the async versions and run them on the given event loop."""

    def __init__(self, cache: NatsCache, loop: asyncio.AbstractEventLoop) -> None:
        self.plain = cache
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        twin = getattr(self.plain, f"a{name}")

        def call(*args: Any, **kwargs: Any) -> Any:
            result = twin(*args, **kwargs)
            if inspect.isasyncgen(result):
                result = _listed(result)
            return self._loop.run_until_complete(result)

        return call

    def __contains__(self, key: str) -> bool:
        return bool(self.has_key(key))


async def _listed(items: Any) -> list[Any]:
    return [item async for item in items]


MakeTwin = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def make_twin(request: pytest.FixtureRequest, make_cache: MakeCache) -> Iterator[MakeTwin]:
    """Make caches like ``make_cache``; ``plain`` is the cache without the async wrapper."""
    loop = asyncio.new_event_loop()

    def make(**params: Any) -> Any:
        cache = make_cache(**params)
        if request.param == "async":
            return Awaited(cache, loop)
        cache.plain = cache  # type: ignore[attr-defined]
        return cache

    yield make
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def twin(make_twin: MakeTwin) -> Any:
    """Return a cache whose methods are the sync ones, or run the async ones."""
    return make_twin()


def advance(cache: Any, seconds: float) -> None:
    """Move the cache's estimate of the server's clock forward by ``seconds``.

    The server's own clock, and with it the TTL of its messages, is not affected.
    """
    # After this read, the estimate is not earlier than any value stored before.
    cache.plain.set("clock", 1, version=99)
    cache.plain.get("clock", version=99)
    cache.plain.bucket.clock.offset += seconds


@dataclass(frozen=True)
class Left:
    """Equal to any time to live that ``seconds`` can have become within a minute."""

    seconds: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and max(0, self.seconds - 60) < other <= self.seconds


def stored(cache: Any, key: str) -> Entry | None:
    """Return the entry that the bucket holds under a key, undecoded, or None."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    return drivers.run(plain.session, plain.bucket.get(plain.make_key(key)))


def stream_state(cache: Any) -> dict[str, Any]:
    """Return the state of the bucket's stream as the server reports it (STREAM.INFO)."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    info = api(plain, f"STREAM.INFO.{plain.bucket.config.stream}", {"subjects_filter": ">"})
    return dict(info["state"])


def plant(cache: Any, key: str, payload: bytes, format: str | None) -> None:
    """Store a raw payload under a key of the cache, as another client of the bucket could."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    write = Write(payload, format, None)
    drivers.run(plain.session, plain.bucket.put(plain.make_key(key), write))


def publish(cache: Any, key: str, payload: bytes, *lines: str) -> None:
    """Store a message under a key of the cache, with header lines as another client wrote them."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    bucket = plain.bucket
    subject = f"$KV.{bucket.config.name}.{encode(plain.make_key(key))}"
    header = "".join(f"{line}\r\n" for line in ("NATS/1.0", *lines, "")).encode()

    def steps() -> Steps[None]:
        request = Request(bucket.stream.lanes.writes, subject, payload, header)
        parse_api((yield from bucket.stream.ask(request)))

    drivers.run(plain.session, steps())
