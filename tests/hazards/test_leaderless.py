"""A view that makes many calls to a stream without a leader waits for one timeout only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.counters.config import CounterConfig
from django_nats.client.kv.config import BucketConfig
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, Unavailable
from tests.servers import eventually
from tests.support.answers import stream_document
from tests.support.ports import free_port

CALLS = 20
TIMEOUT = 1.0
ELECTION = {"error": {"code": 503, "err_code": 10008, "description": "temporarily unavailable"}}


@pytest.fixture
async def service() -> AsyncIterator[tuple[NatsServer, Client]]:
    """Start a server without JetStream, and a client that answers JetStream requests."""
    with NatsServer(port=free_port(), jetstream=False) as server:
        client = await nats.connect(server.url, token=server.token)
        yield server, client
        await client.close()
        await asyncio.to_thread(process.close)


async def answer_api(client: Client, answers: dict[str, Any]) -> None:
    """Answer requests to the JetStream API with the document that answers[subject] holds then."""

    async def answer(message: Any) -> None:
        await message.respond(json.dumps(answers[message.subject]).encode())

    await client.subscribe("$JS.API.>", cb=answer)
    # nats-py's first ping may overtake the subscription.
    await client.flush()
    await client.flush()


async def view(call: Callable[[int], Coroutine[Any, Any, object]]) -> list[type | None]:
    """Make the calls one after the other and return what each raises."""
    outcomes: list[type | None] = []
    for number in range(CALLS):
        try:
            await call(number)
        except Unavailable as error:
            outcomes.append(type(error.__cause__ or error))
        else:
            outcomes.append(None)
    return outcomes


def impatient(owner: NatsCache | Counters) -> None:
    """Have calls wait for a leader for TIMEOUT, but much longer for each answer."""
    stream = (owner.bucket if isinstance(owner, NatsCache) else owner.stream).stream
    stream.opening._patience_s = TIMEOUT
    lanes = stream.lanes
    for lane in (lanes.reads, lanes.writes, lanes.first_opening, lanes.reopening):
        lane.timeout = 60.0


def cache_on(server: NatsServer) -> NatsCache:
    options = {"CONNECT_TIMEOUT": 60.0, "REQUEST_TIMEOUT": TIMEOUT, "TOKEN": server.token}
    cache = NatsCache(server.url, {"OPTIONS": {**options, "BUCKET": "b"}})
    impatient(cache)
    return cache


async def soon(condition: Callable[[], object]) -> bool:
    return await asyncio.to_thread(eventually, condition)


async def test_a_view_waits_once_before_the_first_leader(
    service: tuple[NatsServer, Client],
) -> None:
    server, client = service
    info = "$JS.API.STREAM.INFO.KV_b"
    answers: dict[str, Any] = {info: ELECTION}
    await answer_api(client, answers)
    cache = cache_on(server)
    outcomes = await view(lambda number: cache.aset(f"key-{number}", number))
    assert outcomes[0] is not None
    assert outcomes[1:] == [NotSent] * (CALLS - 1)
    assert await view(lambda number: cache.aget(f"key-{number}")) == [NotSent] * CALLS

    answers[info] = stream_document(BucketConfig("b"))
    await acknowledge_writes(client, "$KV.b.>", {"stream": "KV_b", "seq": 1})
    assert await soon(lambda: cache.bucket.stream.lanes.writes.fault is None)
    await cache.aset("key", 1)


async def test_a_view_waits_once_during_an_election(service: tuple[NatsServer, Client]) -> None:
    server, client = service
    info = "$JS.API.STREAM.INFO.KV_b"
    answers: dict[str, Any] = {
        info: stream_document(BucketConfig("b")),
    }
    await answer_api(client, answers)
    cache = cache_on(server)
    await asyncio.to_thread(drivers.run, cache.session, cache.bucket.stream.opening.ready())
    answers[info] = ELECTION
    outcomes = await view(lambda number: cache.aset(f"key-{number}", number))
    assert outcomes[0] is not None
    assert outcomes[1:] == [NotSent] * (CALLS - 1)

    answers[info] = stream_document(BucketConfig("b"))
    await acknowledge_writes(client, "$KV.b.>", {"stream": "KV_b", "seq": 1})
    assert await soon(lambda: cache.bucket.stream.lanes.writes.fault is None)
    await cache.aset("key", 1)


async def test_a_view_of_counters_waits_once_during_an_election(
    service: tuple[NatsServer, Client], settings: Any
) -> None:
    server, client = service
    settings.NATS_COUNTERS = {
        "default": {
            "LOCATION": server.url,
            "TOKEN": server.token,
            "CONNECT_TIMEOUT": 60.0,
            "REQUEST_TIMEOUT": TIMEOUT,
        }
    }
    info = "$JS.API.STREAM.INFO.COUNTERS"
    answers: dict[str, Any] = {info: ELECTION}
    await answer_api(client, answers)
    counters = Counters()
    impatient(counters)
    outcomes = await view(lambda number: counters.aget_many(["a", "b"]))
    assert outcomes[0] is not None
    assert outcomes[1:] == [NotSent] * (CALLS - 1)
    answers[info] = stream_document(CounterConfig())
    assert await soon(lambda: counters.stream.stream.lanes.writes.fault is None)


async def acknowledge_writes(client: Client, subject: str, ack: dict[str, Any]) -> None:
    async def answer(message: Any) -> None:
        await message.respond(json.dumps(ack).encode())

    await client.subscribe(subject, cb=answer)
    await client.flush()
    await client.flush()
