"""Interrupted listings leave no consumer on the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.client.kv import listing
from django_nats.client.protocol.steps import Pause, Request, Steps
from django_nats.exceptions import NoLeader, OutcomeUnknown
from tests.conftest import api
from tests.servers import eventually


def consumers(cache: NatsCache) -> list[dict[str, Any]]:
    stream = cache.bucket.config.stream
    return list(api(cache, f"CONSUMER.LIST.{stream}", {"offset": 0})["consumers"] or [])


class _Interrupted(BaseException):
    """Raised in place of an exception from a signal handler."""


class TestInterruptions:
    """The consumer is deleted at whatever point the listing is interrupted."""

    COUNT = 250
    """The number of keys: enough for several batches."""

    @pytest.fixture
    def cache_with_keys(self, cache: NatsCache) -> NatsCache:
        cache.set_many({f"key:{number}": 1 for number in range(self.COUNT)})
        return cache

    @pytest.fixture
    def interrupted(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        """Return a function that interrupts the caller at its n-th wait from now on."""
        left = 0
        is_released = drivers._is_released

        def wait(lock: Any, *deadline: float) -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Interrupted
            return is_released(lock, *deadline)

        def interrupt(number: int) -> None:
            nonlocal left
            left = number

        monkeypatch.setattr(drivers, "_is_released", wait)
        return interrupt

    @pytest.mark.parametrize("method", ["keys", "delete_pattern"])
    def test_an_interrupted_sync_call_leaves_no_consumer(
        self, cache_with_keys: NatsCache, interrupted: Callable[[int], None], method: str
    ) -> None:
        for number in range(1, 100):
            interrupted(number)
            try:
                getattr(cache_with_keys, method)("key:*")
            except _Interrupted:
                interrupted(0)
                assert eventually(lambda: consumers(cache_with_keys) == [])
            else:
                break
        interrupted(0)
        assert 3 < number < 99

    @pytest.mark.parametrize("items", [0, 1, 2, 100, 101, COUNT - 1])
    def test_a_closed_iterator_leaves_no_consumer(
        self, cache_with_keys: NatsCache, items: int
    ) -> None:
        keys = cache_with_keys.iter_keys("key:*")
        assert len(list(islice(keys, items))) == items
        keys.close()
        assert eventually(lambda: consumers(cache_with_keys) == [])

    def test_a_garbage_collected_iterator_leaves_no_consumer(
        self, cache_with_keys: NatsCache
    ) -> None:
        keys = cache_with_keys.iter_keys("key:*")
        next(keys)
        del keys
        gc.collect()
        assert eventually(lambda: consumers(cache_with_keys) == [])

    @pytest.mark.parametrize("method", ["akeys", "adelete_pattern", "aiter_keys"])
    async def test_a_cancelled_task_leaves_no_consumer(
        self, cache_with_keys: NatsCache, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        left = 0
        aperform = drivers._aperform

        async def perform(*args: Any) -> Any:
            nonlocal left
            left -= 1
            task = asyncio.current_task()
            if left == 0 and task is not None:
                task.cancel()  # takes effect once the request has been sent
            return await aperform(*args)

        monkeypatch.setattr(drivers, "_aperform", perform)

        async def call() -> None:
            if method == "aiter_keys":
                async for _ in cache_with_keys.aiter_keys("key:*"):
                    pass
            else:
                await getattr(cache_with_keys, method)("key:*")

        for number in range(1, 100):
            left = number
            task = asyncio.create_task(call())
            await asyncio.wait([task])
            left = 0
            if not task.cancelled():
                await task
                break
            assert await asyncio.to_thread(eventually, lambda: consumers(cache_with_keys) == [])
        assert 3 < number < 99

    def test_a_consumer_whose_creation_timed_out_is_deleted(
        self, cache_with_keys: NatsCache
    ) -> None:
        steps = listing.iter_keys(cache_with_keys.bucket, "*")
        create = next(steps)
        drivers.run(cache_with_keys.session, send(create))
        assert len(consumers(cache_with_keys)) == 1
        with pytest.raises(OutcomeUnknown):
            steps.throw(OutcomeUnknown())
        assert eventually(lambda: consumers(cache_with_keys) == [])


def send(request: Request) -> Steps[Any]:
    return (yield request)


class TestLostConsumers:
    """The server deletes the consumer, as after a long pause of the reader or a server's death."""

    def test_a_new_consumer_continues_where_the_lost_one_stopped(self, cache: NatsCache) -> None:
        values = {f"key:{number}": 1 for number in range(50)}
        cache.set_many(values)
        cache.set_many(dict.fromkeys([f"key:{number}" for number in range(0, 50, 7)], 2))
        found = []
        for key in cache.iter_keys(itersize=10):
            found.append(key)
            if len(found) % 10 == 5:
                for each in consumers(cache):
                    assert api(cache, f"CONSUMER.DELETE.{each['stream_name']}.{each['name']}")
        assert sorted(found) == sorted(values)
        assert eventually(lambda: consumers(cache) == [])

    def test_the_listing_raises_no_leader_after_repeated_losses(
        self, cache: NatsCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.set_many({f"key:{number}": 1 for number in range(50)})

        def lost(*args: object) -> Steps[None]:
            yield Pause(0)

        keys = cache.iter_keys(itersize=10)
        next(keys)
        monkeypatch.setattr("django_nats.client.streams.scan._next_batch", lost)
        with pytest.raises(NoLeader, match="listing was lost"):
            list(keys)
        assert eventually(lambda: consumers(cache) == [])
