"""Quotas while the leader of their stream is killed: nothing is lost, and nothing is oversold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest
from django.test import override_settings

from django_nats.client import process
from django_nats.limits import Quota
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

LIMIT = 50
TASKS = 16
FAULTS = 2
BETWEEN = 300
"""Calls that end between two faults."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


async def use_and_refund(quota: Quota, stop: asyncio.Event, ended: asyncio.Semaphore) -> int:
    """Use a quota, and refund some uses, until told to stop. Return what was used in all."""
    random = Random()
    outstanding: list[tuple[str, int]] = []
    while not stop.is_set():
        if outstanding and random.random() < 0.5:
            id, _ = outstanding.pop(random.randrange(len(outstanding)))
            assert await quota.arefund(id)
        else:
            n = random.randint(1, 3)
            usage = await quota.ause("acme", n)
            assert usage.remaining is not None
            if usage:
                assert usage.used <= LIMIT
                outstanding.append((usage.id, n))
        ended.release()
    return sum(n for _, n in outstanding)


async def interrupt(cluster: Cluster, stream: str, ended: asyncio.Semaphore) -> None:
    """Kill the leader again and again, and let calls end after each time."""
    for _ in range(FAULTS):
        await calls(ended)
        (await asyncio.to_thread(cluster.leader, stream)).kill()
        await calls(ended)
        await asyncio.to_thread(cluster.mend)
    await calls(ended)


async def calls(ended: asyncio.Semaphore) -> None:
    for _ in range(BETWEEN):
        await ended.acquire()


def test_elections_neither_lose_nor_oversell_anything(cluster: Cluster) -> None:
    options = {
        "LOCATION": cluster.urls,
        "TOKEN": cluster.token,
        "REPLICAS": 3,
        "DEADLINE": 120,
        "CONNECT_TIMEOUT": 60,
    }
    quota = Quota("exports", limit=LIMIT, per="year")

    async def main() -> int:
        stop, ended = asyncio.Event(), asyncio.Semaphore(0)
        await quota.ausage("acme")
        tasks = [asyncio.create_task(use_and_refund(quota, stop, ended)) for _ in range(TASKS)]
        await interrupt(cluster, quota._stream.config.stream, ended)
        stop.set()
        return sum(await asyncio.gather(*tasks))

    with override_settings(NATS_COUNTERS={"default": options}):
        outstanding = asyncio.run(main())
        assert quota._stream.increments.retried  # elections were noticed
        assert 0 <= outstanding <= LIMIT
        assert quota.usage("acme").used == outstanding
