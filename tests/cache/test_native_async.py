"""The async methods use no threads: neither sync_to_async nor an executor."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asgiref.sync
import pytest
from django.core.cache.backends import base
from django.core.cache.backends.locmem import LocMemCache

from django_nats.cache import NatsCache
from tests.support.operations import CACHE, HELD, LIVES_S

pytestmark = pytest.mark.smoke


class Refusal(AssertionError):
    """Raised when a test would leave the event loop for a thread."""


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise Refusal


@pytest.fixture
async def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every way from the test's event loop into a thread raise Refusal."""
    for module in (asgiref.sync, base):
        monkeypatch.setattr(module, "sync_to_async", refuse)
    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", refuse)
    monkeypatch.setattr(asyncio, "to_thread", refuse)
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)


@pytest.fixture
async def filled_cache(cache: NatsCache) -> NatsCache:
    """Return a cache that holds the initial values of the table of operations."""
    await cache.aset_many(HELD, LIVES_S)
    return cache


@pytest.mark.parametrize("row", CACHE)
async def test_no_async_method_needs_a_thread(
    filled_cache: NatsCache, no_threads: None, row: str
) -> None:
    call = CACHE[row].at((await filled_cache.aget_with_revision("key"))[1])
    assert call.result == await call.awaited(filled_cache)


async def coroutine_function(value: Any = "made") -> Any:
    await asyncio.sleep(0)
    return value


@pytest.mark.usefixtures("no_threads")
async def test_no_coroutine_function_needs_a_thread(cache: NatsCache) -> None:
    assert await cache.aget_or_set("made", coroutine_function) == "made"
    assert await cache.aupdate("made", coroutine_function) == "made"


@pytest.mark.usefixtures("no_threads")
async def test_the_fixture_refuses_every_way_into_a_thread() -> None:
    with pytest.raises(Refusal):
        await LocMemCache("", {}).aget("key")
    with pytest.raises(Refusal):
        await asyncio.to_thread(len, "")
    with pytest.raises(Refusal):
        await asyncio.get_running_loop().run_in_executor(None, len, "")


async def test_the_event_loop_runs_while_an_operation_waits(cache: NatsCache) -> None:
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
