"""Access to a bucket by another program, through nats-py's own KeyValue."""

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
    await cache.ahas_key("warm-up")  # creates the bucket
    client = await nats.connect(server.url, token=server.token, connect_timeout=60)
    try:
        yield await client.jetstream().key_value(cache.bucket.config.name)
    finally:
        await client.close()


async def keys_of(bucket: KeyValue) -> list[str]:
    """Return the keys of a bucket that is not empty."""
    while True:
        # nats-py also raises this if all keys arrived before it checked how many were pending.
        with suppress(NoKeysError):
            return await bucket.keys()  # type: ignore[no-any-return]
