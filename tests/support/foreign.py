"""The bucket as another program sees it: nats-py's own KeyValue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats
from nats.js.errors import NoKeysError
from nats.js.kv import KeyValue

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer


@asynccontextmanager
async def key_value(server: NatsServer, cache: NatsCache) -> AsyncIterator[KeyValue]:
    await cache.ahas_key("warm-up")  # makes the bucket
    client = await nats.connect(server.url, token=server.token)
    try:
        yield await client.jetstream().key_value(cache._bucket.config.name)
    finally:
        await client.close()


async def keys_of(bucket: KeyValue) -> list[str]:
    """Of a bucket that is not empty."""
    while True:
        # It says so as well when all keys have come in before it looks how many are to come.
        with suppress(NoKeysError):
            return await bucket.keys()  # type: ignore[no-any-return]
