"""Every scenario is written once, and run by the sync methods and by their async twins."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.client.entry import Entry, Write
from tests.conftest import MakeCache, api


class Awaited:
    """A cache whose methods run their async twins to the end, on an event loop of the test's."""

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
    """As ``make_cache``; ``plain`` of what it makes is the cache itself."""
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
    return make_twin()


def advance(cache: Any, seconds: float) -> None:
    """Let the cache believe that so many seconds have passed on the server.

    What the server's own TTL does is left out: it runs on.
    """
    # Reading what has just been stored makes the estimate no earlier than all that was before.
    cache.plain.set("clock", 1, version=99)
    cache.plain.get("clock", version=99)
    cache.plain._bucket._clock += seconds


@dataclass(frozen=True)
class Left:
    """Equal to what is left of so many seconds of which few have passed."""

    seconds: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and max(0, self.seconds - 8) < other <= self.seconds


def stored(cache: Any, key: str) -> Entry | None:
    """What the bucket holds under a key, undecoded."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    return bridge.run(plain.session, plain._bucket.get(plain.make_key(key)))


def stream_state(cache: Any) -> dict[str, Any]:
    """STREAM.INFO's account of what the server itself holds."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    info = api(plain, f"STREAM.INFO.{plain._bucket.config.stream}", {"subjects_filter": ">"})
    return dict(info["state"])


def plant(cache: Any, key: str, payload: bytes, format: str | None) -> None:
    """Store under a key of the cache what somebody else who can write to the bucket might."""
    plain = cache.plain if hasattr(cache, "plain") else cache
    write = Write(payload, format, None)
    bridge.run(plain.session, plain._bucket.put(plain.make_key(key), write))
