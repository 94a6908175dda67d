"""REPUBLISH on a real server: what is published again, and under which subject."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats
import pytest

from django_nats.client.streams.differences import differences
from django_nats.devserver import NatsServer
from tests.conftest import MakeCache, api

Follow = Callable[[str], Awaitable["asyncio.Queue[Any]"]]
_PATIENCE_S = 60


@pytest.fixture
async def follow(server: NatsServer) -> AsyncIterator[Follow]:
    """Yield a function that subscribes to a subject, and returns the queue of its messages."""
    client = await nats.connect(server.url, token=server.token, connect_timeout=_PATIENCE_S)

    async def subscribe(subject: str) -> asyncio.Queue[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        await client.subscribe(subject, cb=queue.put)
        await client.flush(_PATIENCE_S)
        return queue

    yield subscribe
    await client.close()


async def take(queue: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(queue.get(), _PATIENCE_S)


async def test_writes_and_deletes_are_published_again(
    make_cache: MakeCache, follow: Follow
) -> None:
    serializer = "django_nats.serializers.JSONSerializer"
    bucket = make_cache().bucket.config.name
    republish = {"dest": f"changes.{bucket}.>"}
    cache = make_cache(OPTIONS={"REPUBLISH": republish, "SERIALIZER": serializer})
    queue = await follow(f"changes.{bucket}.>")

    await cache.aset("user:42", {"name": "Ada"}, 100)
    stored = await take(queue)
    await cache.adelete("user:42")
    deleted = await take(queue)

    assert stored.subject == deleted.subject == f"changes.{bucket}.=.1.user.42"
    assert stored.data == b'{"name":"Ada"}'
    assert stored.headers["Django-Nats"] == "json;ms=100000"
    assert stored.headers["Nats-Subject"] == f"$KV.{bucket}.=.1.user.42"
    assert int(deleted.headers["Nats-Sequence"]) > int(stored.headers["Nats-Sequence"])
    assert deleted.headers["Nats-Last-Sequence"] == stored.headers["Nats-Sequence"]
    assert (deleted.data, deleted.headers["KV-Operation"]) == (b"", "PURGE")
    assert await cache.aget("user:42") is None


async def test_clear_is_published_as_one_message(make_cache: MakeCache, follow: Follow) -> None:
    bucket = make_cache().bucket.config.name
    cache = make_cache(OPTIONS={"REPUBLISH": {"dest": f"changes.{bucket}.>"}})
    await cache.aset_many({"a": 1, "b": 2})
    queue = await follow(f"changes.{bucket}.>")

    await cache.aclear()
    await cache.aset("c", 3)

    assert [(await take(queue)).subject for _ in range(2)] == [
        f"changes.{bucket}.=clear",
        f"changes.{bucket}.=.1.c",
    ]


async def test_headers_only_leaves_the_values_out(make_cache: MakeCache, follow: Follow) -> None:
    bucket = make_cache().bucket.config.name
    members = {
        "src": f"$KV.{bucket}.=.*.flags.*",
        "dest": f"flags.{bucket}.{{{{wildcard(2)}}}}",
        "headers_only": True,
    }
    cache = make_cache(OPTIONS={"REPUBLISH": members})
    queue = await follow(f"flags.{bucket}.>")

    await cache.aset_many({"other": 1, "flags:a": 12345})
    message = await take(queue)

    assert (message.subject, message.data) == (f"flags.{bucket}.a", b"")
    assert message.headers["Nats-Msg-Size"] == "5"
    assert queue.empty()
    assert await cache.aget_many(["other", "flags:a"]) == {"other": 1, "flags:a": 12345}


def test_the_server_stores_it_as_settings_say(make_cache: MakeCache) -> None:
    bucket = make_cache().bucket.config.name
    cache = make_cache(OPTIONS={"REPUBLISH": {"dest": f"changes.{bucket}.>"}})
    cache.get("key")
    document = api(cache, f"STREAM.INFO.{cache.bucket.config.stream}")
    assert document["config"]["republish"] == {
        "src": f"$KV.{bucket}.>",
        "dest": f"changes.{bucket}.>",
    }
    assert differences(cache.bucket.config, document["config"], document["state"]) == []
