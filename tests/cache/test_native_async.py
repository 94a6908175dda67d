"""The async methods use no thread of anybody's: neither sync_to_async nor an executor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import asgiref.sync
import pytest
from django.core.cache.backends import base
from django.core.cache.backends.locmem import LocMemCache

from django_nats.cache import NatsCache
from tests.cache.conftest import Left

pytestmark = pytest.mark.smoke


class Refusal(AssertionError):
    """Raised by whatever would leave the event loop for a thread."""


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise Refusal


@pytest.fixture
async def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the test's event loop, every way into a thread raises Refusal."""
    for module in (asgiref.sync, base):
        monkeypatch.setattr(module, "sync_to_async", refuse)
    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", refuse)
    monkeypatch.setattr(asyncio, "to_thread", refuse)
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)


async def coroutine_function(value: Any = "made") -> Any:
    await asyncio.sleep(0)
    return value


async def listed(cache: NatsCache, pattern: str) -> list[str]:
    return [key async for key in cache.aiter_keys(pattern)]


Call = Callable[[NatsCache], Coroutine[Any, Any, Any]]

CALLS: dict[str, tuple[Call, Any]] = {
    "aset": (lambda cache: cache.aset("key", 5, 100), None),
    "aget": (lambda cache: cache.aget("key"), 5),
    "aadd": (lambda cache: cache.aadd("key", 6), False),
    "ahas_key": (lambda cache: cache.ahas_key("key"), True),
    "atouch": (lambda cache: cache.atouch("key", 100), True),
    "aincr": (lambda cache: cache.aincr("key"), 6),
    "adecr": (lambda cache: cache.adecr("key"), 5),
    "attl": (lambda cache: cache.attl("key"), Left(100)),
    "apttl": (lambda cache: cache.apttl("absent"), 0),
    "aexpire": (lambda cache: cache.aexpire("key", 100), True),
    "apexpire": (lambda cache: cache.apexpire("key", 100_000), True),
    "aexpire_at": (lambda cache: cache.aexpire_at("absent", 1e10), False),
    "apersist": (lambda cache: cache.apersist("key"), True),
    "aset_many": (lambda cache: cache.aset_many({"a": 1, "b": 2}), []),
    "aget_many": (lambda cache: cache.aget_many(["a", "b"]), {"a": 1, "b": 2}),
    "akeys": (lambda cache: cache.akeys("a"), ["a"]),
    "aiter_keys": (lambda cache: listed(cache, "b"), ["b"]),
    "adelete_many": (lambda cache: cache.adelete_many(["a", "b"]), None),
    "aget_or_set": (lambda cache: cache.aget_or_set("made", coroutine_function), "made"),
    "aget_with_revision": (lambda cache: cache.aget_with_revision("absent"), (None, 0)),
    "aupdate": (lambda cache: cache.aupdate("key", coroutine_function), 5),
    "aincr_version": (lambda cache: cache.aincr_version("key"), 2),
    "adecr_version": (lambda cache: cache.adecr_version("key", version=2), 1),
    "adelete": (lambda cache: cache.adelete("key"), True),
    "adelete_pattern": (lambda cache: cache.adelete_pattern("ma*"), 1),
    "astats": (lambda cache: with_entries(cache), True),
    "aclear": (lambda cache: cache.aclear(), None),
    "aclose": (lambda cache: cache.aclose(), None),
}


async def with_entries(cache: NatsCache) -> bool:
    return (await cache.astats()).entries > 0


def test_every_async_method_is_called_below() -> None:
    twins = {
        f"a{name}"
        for name in dir(NatsCache)
        if not name.startswith("_") and callable(getattr(NatsCache, f"a{name}", None))
    }
    assert twins == CALLS.keys()


@pytest.mark.usefixtures("no_threads")
async def test_no_async_method_needs_a_thread(cache: NatsCache) -> None:
    # In one test, since they follow on one another.
    for name, (call, expected) in CALLS.items():
        assert await call(cache) == expected, name


@pytest.mark.usefixtures("no_threads")
async def test_the_refusal_bites() -> None:
    with pytest.raises(Refusal):
        await LocMemCache("", {}).aget("key")
    with pytest.raises(Refusal):
        await asyncio.to_thread(len, "")
    with pytest.raises(Refusal):
        await asyncio.get_running_loop().run_in_executor(None, len, "")


async def test_the_loop_turns_while_an_operation_waits(cache: NatsCache) -> None:
    await cache.aset("key", 1)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await cache.aget("key")
    counting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await counting
    assert turns > 1
