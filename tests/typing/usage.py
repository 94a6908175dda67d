"""Calls of the whole public API, as users write them, with the type of every result."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.test import TestCase
from nats.aio.client import Client

from django_nats import connection, keys, pytest_plugin, run
from django_nats.cache import NatsCache, nats_aliases, nats_cache, nats_caches
from django_nats.cache.watching import Change, Changes
from django_nats.client.kv.bucket import Bucket
from django_nats.client.transport.session import Session
from django_nats.compressors import (
    Compressor,
    Lz4Compressor,
    LzmaCompressor,
    ZlibCompressor,
    ZstdCompressor,
)
from django_nats.conf.caches import CacheConfig
from django_nats.counters import (
    Counters,
    counters,
    write_behind,
)
from django_nats.counters.testing import ZeroedCounters, zeroed_counters
from django_nats.devserver import Endpoint, NatsServer, embedded, find_binary
from django_nats.exceptions import NatsError, NotSent, OutcomeUnknown
from django_nats.nearcache import NearCache
from django_nats.serializers import (
    JSONSerializer,
    MsgPackSerializer,
    PickleSerializer,
    Serializer,
    SignedPickleSerializer,
)
from django_nats.signals import key_changed
from django_nats.stats import CacheStats

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


# The cache ---------------------------------------------------------------------------------------


def made() -> NatsCache:
    assert_type(nats_cache(), NatsCache)
    assert_type(nats_cache("default").ttl("key"), int | None)
    assert_type(nats_aliases(), list[str])
    assert_type(nats_caches(), dict[str, NatsCache])
    with NatsServer() as server:
        private = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token, "NEAR_CACHE": {}}})
        assert_type(private, NatsCache)
    return nats_caches()["default"]


def properties(cache: NatsCache) -> None:
    assert_type(cache.alias, str)
    assert_type(cache.config, CacheConfig)
    assert_type(cache.bucket, Bucket)
    assert_type(cache.session, Session)
    assert_type(cache.near, NearCache | None)
    assert_type(cache.stats(), CacheStats)
    assert_type(cache.stats().rtt, float | None)
    assert_type(cache.make_key("key", version=2), str)
    assert_type(cache.make_and_validate_key("key", version=2), str)
    assert_type(cache.validate_key("key"), None)
    assert_type(cache.get_backend_timeout(30), float | None)
    assert_type("key" in cache, bool)


def reading(cache: NatsCache) -> None:
    assert_type(cache.get("key"), Any)
    assert_type(cache.get("key", default=1, version=2), Any)
    assert_type(cache.get_many(["a", "b"], version=2), dict[str, Any])
    assert_type(cache.has_key("key", version=2), bool)
    assert_type(cache.get_with_revision("key", default=0, version=2), tuple[Any, int])
    value, revision = cache.get_with_revision("key")
    assert_type(revision, int)
    assert_type(cache.set("key", value, revision=revision), bool | None)


def writing(cache: NatsCache) -> None:
    assert_type(cache.set("key", 1), bool | None)
    assert_type(cache.set("key", 1, timeout=30, version=2), bool | None)
    assert_type(cache.set("key", 1, timeout=None, nx=True), bool | None)
    assert_type(cache.set("key", 1, xx=True), bool | None)
    assert_type(cache.set_many({"a": 1, "b": "two"}, timeout=30, version=2), list[str])
    assert_type(cache.add("key", 1, timeout=30, version=2), bool)
    assert_type(cache.get_or_set("key", lambda: 1, timeout=30, version=2), Any)
    assert_type(cache.update("key", lambda value: value + 1, default=0, timeout=30), Any)
    assert_type(cache.incr("key"), int | None)
    assert_type(cache.incr("key", delta=2, version=2, ignore_key_check=True), int | None)
    assert_type(cache.decr("key", delta=2, version=2, ignore_key_check=True), int | None)
    assert_type(cache.incr_version("key", delta=1, version=2), int | None)
    assert_type(cache.decr_version("key", delta=1, version=2), int | None)


def deleting(cache: NatsCache) -> None:
    assert_type(cache.delete("key", version=2), bool)
    assert_type(cache.getdel("key", default=1, version=2), Any)
    assert_type(cache.delete_many(["a", "b"], version=2), None)
    assert_type(cache.delete_pattern("user:*", version=2, itersize=100), int)
    assert_type(cache.clear(), None)
    assert_type(cache.close(), None)


def expiring(cache: NatsCache) -> None:
    assert_type(cache.touch("key", timeout=30, version=2), bool)
    assert_type(cache.ttl("key", version=2), int | None)
    assert_type(cache.pttl("key", version=2), int | None)
    assert_type(cache.expire("key", 30, version=2), bool)
    assert_type(cache.expire("key", timedelta(minutes=1)), bool)
    assert_type(cache.pexpire("key", 30_000, version=2), bool)
    assert_type(cache.pexpire("key", timedelta(minutes=1)), bool)
    assert_type(cache.expire_at("key", datetime.now(), version=2), bool)
    assert_type(cache.expire_at("key", 4e9), bool)
    assert_type(cache.pexpire_at("key", 4e12, version=2), bool)
    assert_type(cache.persist("key", version=2), bool)


def listing(cache: NatsCache) -> None:
    assert_type(cache.keys("user:*", version=2), list[str])
    assert_type(cache.iter_keys("user:*", itersize=100, version=2), Iterator[str])
    for key in cache.iter_keys():
        assert_type(key, str)


def watching(cache: NatsCache) -> None:
    assert_type(cache.watch("user:*", version=2), Changes)
    for change in cache.watch():
        assert_type(change, Change)
        assert_type(change.key, str | None)
        assert_type(change.revision, int)
        assert_type(change.deleted, bool)
        assert_type(change.gap, bool)


async def in_async_code(cache: NatsCache) -> None:
    assert_type(await cache.aget("key", default=1, version=2), Any)
    assert_type(await cache.aget_many(["a", "b"], version=2), dict[str, Any])
    assert_type(await cache.ahas_key("key", version=2), bool)
    assert_type(await cache.aget_with_revision("key", default=0, version=2), tuple[Any, int])
    assert_type(await cache.aset("key", 1, timeout=30, version=2), bool | None)
    assert_type(await cache.aset("key", 1, nx=True), bool | None)
    assert_type(await cache.aset("key", 1, xx=True), bool | None)
    assert_type(await cache.aset("key", 1, revision=3), bool | None)
    assert_type(await cache.aset_many({"a": 1}, timeout=30, version=2), list[str])
    assert_type(await cache.aadd("key", 1, timeout=30, version=2), bool)
    assert_type(await cache.aget_or_set("key", computed, timeout=30, version=2), Any)
    assert_type(await cache.aupdate("key", doubled, default=0, timeout=30, version=2), Any)
    assert_type(await cache.aincr("key", delta=2, ignore_key_check=True), int | None)
    assert_type(await cache.adecr("key", delta=2, ignore_key_check=True), int | None)
    assert_type(await cache.aincr_version("key", delta=1, version=2), int | None)
    assert_type(await cache.adecr_version("key", delta=1, version=2), int | None)
    assert_type(await cache.adelete("key", version=2), bool)
    assert_type(await cache.agetdel("key", default=1, version=2), Any)
    assert_type(await cache.adelete_many(["a", "b"], version=2), None)
    assert_type(await cache.adelete_pattern("user:*", version=2, itersize=100), int)
    assert_type(await cache.aclear(), None)
    assert_type(await cache.aclose(), None)
    assert_type(await cache.atouch("key", timeout=30, version=2), bool)
    assert_type(await cache.attl("key", version=2), int | None)
    assert_type(await cache.apttl("key", version=2), int | None)
    assert_type(await cache.aexpire("key", timedelta(minutes=1), version=2), bool)
    assert_type(await cache.apexpire("key", 30_000, version=2), bool)
    assert_type(await cache.aexpire_at("key", datetime.now(), version=2), bool)
    assert_type(await cache.apexpire_at("key", 4e12, version=2), bool)
    assert_type(await cache.apersist("key", version=2), bool)
    assert_type(await cache.akeys("user:*", version=2), list[str])
    assert_type(cache.aiter_keys("user:*", itersize=100, version=2), AsyncIterator[str])
    async for key in cache.aiter_keys():
        assert_type(key, str)
    async for change in cache.watch():
        assert_type(change, Change)
    assert_type(await cache.astats(), CacheStats)


async def computed() -> int:
    return 1


async def doubled(value: int) -> int:
    return 2 * value


def near(cache: NatsCache) -> None:
    if cache.near is not None:
        assert_type(cache.near.entries, int)
        assert_type(cache.near.bytes, int)
        assert_type(cache.near.hits, int)
        assert_type(cache.near.misses, int)
        assert_type(cache.near.flushes, int)
        assert_type(cache.near.state, str)
        assert_type(cache.near.lag, float)
        assert_type(cache.near.start(), None)
        assert_type(cache.near.stop(), None)


def forget(alias: str, key: str | None, **kwargs: Any) -> None: ...


def connecting() -> None:
    key_changed.connect(forget)


def errors(cache: NatsCache) -> None:
    try:
        cache.set("key", 1)
    except NotSent:
        pass
    except OutcomeUnknown as error:
        assert_type(error, OutcomeUnknown)
    except NatsError as error:
        assert_type(error, NatsError)


class Prefixed(NatsCache):
    """A subclass overrides a method as Django's are overridden."""

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return super().get(f"site:{key}", default, version)

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return await super().aget(f"site:{key}", default, version)


# What settings name ------------------------------------------------------------------------------


class Reversing:
    """A serializer and a compressor of a project's own."""

    name = "reversing"

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        return str(value).encode()[::-1]

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        return data[::-1].decode()

    def compress(self, data: bytes) -> bytes:
        return data[::-1]

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        return data[::-1]


def serializers() -> list[Serializer]:
    return [
        PickleSerializer(protocol=5),
        SignedPickleSerializer(),
        JSONSerializer(),
        MsgPackSerializer(),
        Reversing(),
    ]


def compressors() -> list[Compressor]:
    return [ZlibCompressor(), LzmaCompressor(), Lz4Compressor(), ZstdCompressor(), Reversing()]


def stored(serializer: Serializer, compressor: Compressor) -> None:
    assert_type(serializer.name, str)
    assert_type(serializer.dumps(1, bucket="web", key=":1:key"), bytes)
    assert_type(serializer.loads(b"1", bucket="web", key=":1:key"), object)
    assert_type(compressor.name, str)
    assert_type(compressor.compress(b"1"), bytes)
    assert_type(compressor.decompress(b"1", limit=100), bytes)
    assert_type(keys.encode(":1:user:42"), str)
    assert_type(keys.decode("=.1.user.42"), str | None)


# Servers, processes and tests --------------------------------------------------------------------


def servers() -> None:
    assert_type(find_binary(), str)
    assert_type(embedded("directory", timeout=5.0), Endpoint)
    with NatsServer(port=4222, token="secret", config="debug: true") as server:
        assert_type(server, NatsServer)
        assert_type(server.url, str)
        assert_type(server.token, str)
        assert_type(server.port, int)
        assert_type(server.pid, int)
        assert_type(server.running, bool)
        assert_type(server.directory, Path)
        assert_type(server.log(), str)
        assert_type(server.pause(), None)
        assert_type(server.resume(), None)
        assert_type(server.restart(timeout=5.0), None)
        assert_type(server.kill(), None)
        assert_type(server.start(timeout=5.0), None)
        assert_type(server.stop(), None)


def at_the_end_of_a_worker() -> None:
    assert_type(write_behind.at_exit(), None)


class ArticleTests(ZeroedCounters, TestCase):
    def test_it_counts(self) -> None:
        assert counters.incr("page.home") == 1


def testing() -> None:
    with zeroed_counters({"LOCATION": "embedded"}) as zeroed:
        assert_type(zeroed, Counters)


def fixtures(
    nats_server: NatsServer, nats_cache: NatsCache, nats_counters: Counters
) -> list[object]:
    return [pytest_plugin.nats_server, pytest_plugin.nats_cache, pytest_plugin.nats_counters]


# NATS itself -------------------------------------------------------------------------------------


async def publish(nc: Client, subject: str, data: bytes, retries: int = 0) -> int:
    await nc.publish(subject, data)
    return retries


async def blocks() -> None:
    async with connection("default") as nc:
        assert_type(nc, Client)
        assert_type((await nc.request("subject", b"data", timeout=1)).data, bytes)
    async with connection() as nc:
        await publish(nc, "subject", b"data")


def functions() -> None:
    assert_type(run("default", publish, "subject", b"data"), int)
    assert_type(run("default", publish, "subject", b"data", 3, timeout=0.5), int)
    run("default", publish, "subject")  # type: ignore[arg-type]  # pyright: ignore
    run("default", publish, b"data", "subject")  # type: ignore[arg-type]  # pyright: ignore
