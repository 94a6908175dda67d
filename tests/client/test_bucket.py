"""Buckets on a real server: what settings make of them, and what becomes of them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import nats
import pytest
from nats.js.api import KeyValueConfig

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.client.bucket import BucketConfig
from django_nats.client.differences import differences
from django_nats.client.kv import Bucket
from django_nats.client.steps import Steps
from django_nats.client.wire import Reply
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    BucketMismatch,
    ServerError,
    ServerTooOld,
    Unavailable,
    ValueTooLarge,
)
from django_nats.serializers import JSONSerializer
from tests.conftest import MakeCache, api
from tests.support.cluster import Cluster

MIB = 1024 * 1024


def info(cache: NatsCache) -> dict[str, Any]:
    return api(cache, f"STREAM.INFO.KV_{cache._bucket.config.name}")


def made(cache: NatsCache) -> dict[str, Any]:
    """The stream's config, as the server tells it after the cache's first operation."""
    cache.get("key")
    config: dict[str, Any] = info(cache)["config"]
    return config


# Made as settings say ------------------------------------------------------------------------


def test_a_bucket_is_one_for_every_client_and_fit_for_a_cache(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"REQUEST_TIMEOUT": 1.0})  # the default
    config = made(cache)
    name = cache._bucket.config.name
    assert (
        config.items()
        >= {
            "name": f"KV_{name}",
            "subjects": [f"$KV.{name}.>"],
            "description": "Django cache",
            "retention": "limits",
            "storage": "memory",
            "num_replicas": 1,
            "max_msgs_per_subject": 1,
            "max_age": 0,
            "max_bytes": -1,
            "max_msgs": -1,
            "max_msg_size": MIB,
            "discard": "old",
            "compression": "none",
            "duplicate_window": 5_000_000_000,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }.items()
    )
    assert "subject_delete_marker_ttl" not in config


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"STORAGE": "file"}, {"storage": "file"}),
        ({"MAX_BYTES": "64MiB"}, {"max_bytes": 64 * MIB, "max_msg_size": MIB}),
        ({"MAX_BYTES": "1MiB"}, {"max_bytes": MIB, "max_msg_size": MIB // 4}),
        ({"EVICT": False}, {"discard": "new"}),
        ({"MAX_ENTRIES": 1000}, {"max_msgs": 1000}),
        ({"MAX_VALUE_SIZE": "8KiB"}, {"max_msg_size": 8192}),
        ({"STORAGE": "file", "COMPRESSION": "s2"}, {"compression": "s2"}),
        ({"DESCRIPTION": "Pages of the shop"}, {"description": "Pages of the shop"}),
        ({"REQUEST_TIMEOUT": 3}, {"duplicate_window": 9_000_000_000}),
    ],
    ids=str,
)
def test_options(
    make_cache: MakeCache, options: dict[str, object], expected: dict[str, object]
) -> None:
    cache = make_cache(OPTIONS=options)
    config = made(cache)
    assert config.items() >= expected.items()
    document = info(cache)
    assert differences(cache._bucket.config, config, document["state"]) == []
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_persist(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"STORAGE": "file", "PERSIST": "async"})
    if api(cache, "INFO")["api"]["level"] < 2:
        with pytest.raises(ServerTooOld, match=r"nats-server 2\.12\.0 or newer"):
            cache.get("key")
    else:
        config = made(cache)
        assert config["persist_mode"] == "async"
        assert differences(cache._bucket.config, config, {}) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        bridge.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"REPLICAS": 3}, {"num_replicas": 3}),
        ({"REPLICAS": 3, "STORAGE": "file"}, {"num_replicas": 3, "storage": "file"}),
        ({"PLACEMENT": {"CLUSTER": "c"}}, {"placement": {"cluster": "c"}}),
    ],
    ids=str,
)
def test_options_of_a_cluster(
    cluster: Cluster, options: dict[str, object], expected: dict[str, object]
) -> None:
    bucket = f"test_{secrets.token_hex(6)}"
    options = {"BUCKET": bucket, "TOKEN": cluster.token, "REQUEST_TIMEOUT": 5, **options}
    cache = NatsCache(cluster.urls, {"OPTIONS": options})
    config = made(cache)
    assert config.items() >= expected.items()
    assert differences(cache._bucket.config, config, info(cache)["state"]) == []
    assert cache._bucket.replicated is (config["num_replicas"] > 1)
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_placement_by_tags() -> None:
    with NatsServer(config='server_tags: ["ssd", "eu"]') as server:
        options = {"BUCKET": "placed", "TOKEN": server.token}
        cache = NatsCache(server.url, {"OPTIONS": {**options, "PLACEMENT": {"TAGS": ["ssd"]}}})
        config = made(cache)
        assert config["placement"] == {"tags": ["ssd"]}
        assert differences(cache._bucket.config, config, {}) == []
        bridge.close()


def test_reads_of_the_leader(make_cache: MakeCache) -> None:
    """Only the stream's leader answers STREAM.MSG.GET: a direct get shows in its headers."""
    cache = make_cache(OPTIONS={"READS": "leader"})
    cache.set_many({"one": 1, "two": 2})
    steps = cache._bucket.get(":1:one")
    asked = drive_and_record(cache, steps)
    assert asked == [f"$JS.API.STREAM.MSG.GET.KV_{cache._bucket.config.name}"]
    assert cache.get("one") == 1
    assert cache.get_many(["one", "two", "three"]) == {"one": 1, "two": 2}
    anywhere = make_cache()
    (subject,) = drive_and_record(anywhere, anywhere._bucket.get(":1:one"))
    assert subject.startswith("$JS.API.DIRECT.GET.")


def drive_and_record(cache: NatsCache, steps: Steps[Any]) -> list[str]:
    """Where an operation on an open bucket sends its requests."""
    cache.get("warm-up")
    subjects = []

    def recording() -> Steps[None]:
        answer = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                return
            subjects.append(effect.subject.decode())
            answer = yield effect

    bridge.run(cache.session, recording())
    return subjects


def test_what_the_server_refuses_to_make_is_told_by_name(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"REPLICAS": 3})
    with pytest.raises(ServerError, match=r"bucket test_\w+ cannot be made: .*non-clustered"):
        cache.get("key")


# Sizes ---------------------------------------------------------------------------------------


def stored_size(cache: NatsCache, key: str) -> int:
    """Bytes of a key's message, headers included."""
    message = api(
        cache,
        f"STREAM.MSG.GET.KV_{cache._bucket.config.name}",
        {"last_by_subj": f"$KV.{cache._bucket.config.name}.=.1.{key}"},
    )["message"]
    return sum(len(base64.b64decode(message.get(part, ""))) for part in ("hdrs", "data"))


@pytest.mark.parametrize("timeout", [300, None])
def test_a_value_counts_with_its_headers(make_cache: MakeCache, timeout: int | None) -> None:
    cache = make_cache(OPTIONS={"MAX_VALUE_SIZE": 2000, "SERIALIZER": JSONSerializer})
    cache.set("key", "", timeout)
    room = 2000 - stored_size(cache, "key")
    for short in (1, 0):
        cache.set("key", "x" * (room - short), timeout)
        assert stored_size(cache, "key") == 2000 - short
    with pytest.raises(ValueTooLarge) as caught:
        cache.set("key", "x" * (room + 1), timeout)
    for part in ("':1:key'", f"{room + 3} bytes", "at most 2000", "MAX_VALUE_SIZE"):
        assert part in str(caught.value)
    assert cache.get("key") == "x" * room
    with pytest.raises(ValueTooLarge):
        cache.add("other", "x" * 2000)
    assert cache.set_many({"small": 1, "large": "x" * 2000}) == ["large"]
    assert cache.get_many(["small", "large"]) == {"small": 1}


def test_the_servers_own_limit_counts_too() -> None:
    """A frame over it would make the server drop the client."""
    with NatsServer(config="max_payload: 4000") as server:
        options = {"BUCKET": "small", "TOKEN": server.token, "SERIALIZER": JSONSerializer}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.set("key", "")
        room = 4000 - stored_size(cache, "key")
        epoch = cache.session.epoch
        cache.set("key", "x" * room)
        with pytest.raises(ValueTooLarge, match="at most 4000"):
            cache.set("key", "x" * (room + 1))
        assert cache.get("key") == "x" * room
        # More keys than fit into one question.
        keys = [f"key-{number:0100}" for number in range(200)]
        assert cache.set_many(dict.fromkeys(keys, 1)) == []
        assert cache.get_many(keys) == dict.fromkeys(keys, 1)
        assert cache.session.epoch == epoch
        bridge.close()


def test_the_limit_is_the_existing_buckets(make_cache: MakeCache) -> None:
    first = make_cache(OPTIONS={"MAX_VALUE_SIZE": 2000})
    first.get("key")
    second = make_cache(OPTIONS={"MAX_VALUE_SIZE": 4000})
    with pytest.raises(ValueTooLarge, match="at most 2000"):
        second.set("key", "x" * 3000)


# Made by others ------------------------------------------------------------------------------


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[Any]:
    client = await nats.connect(server.url, token=server.token)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_a_bucket_of_another_client_is_refused_with_what_to_do(
    server: NatsServer, make_cache: MakeCache
) -> None:
    cache = make_cache()
    name = cache._bucket.config.name
    async with jetstream(server) as js:
        await js.create_key_value(KeyValueConfig(bucket=name, history=5, direct=False))
        for _ in range(2):
            with pytest.raises(BucketMismatch) as caught:
                await cache.aset("key", "value")
    for part in (
        name,
        "max_msgs_per_subject is 5, not 1",
        "allow_direct is False, not True",
        "nats setup",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5, not 1"),
        ({"max_msgs_per_subject": -1}, "max_msgs_per_subject is -1, not 1"),
        ({"allow_direct": False}, "allow_direct is False, not True"),
        ({"allow_rollup_hdrs": False}, "allow_rollup_hdrs is False, not True"),
        ({"allow_msg_ttl": False}, "allow_msg_ttl is False, not True"),
        ({"subjects": ["elsewhere.>"]}, "is no key-value bucket: it holds ['elsewhere.>']"),
    ],
    ids=str,
)
def test_a_stream_that_cannot_serve_is_refused(
    make_cache: MakeCache, change: dict[str, Any], said: str
) -> None:
    cache = make_cache()
    config = cache._bucket.config
    unique = {"subjects": [f"{config.name}.>"]} if "subjects" in change else {}
    answer = api(
        cache, f"STREAM.CREATE.{config.stream}", {**config.stream_config(), **change, **unique}
    )
    assert "error" not in answer
    with pytest.raises(BucketMismatch) as caught:
        cache.get("key")
    assert said.replace("elsewhere", config.name) in str(caught.value)


def test_a_mirror_is_no_bucket(make_cache: MakeCache) -> None:
    origin, cache = make_cache(), make_cache(OPTIONS={"BUCKET": f"m_{secrets.token_hex(6)}"})
    origin.get("key")
    mirror = {"name": cache._bucket.config.stream, "mirror": {"name": origin._bucket.config.stream}}
    assert "error" not in api(cache, f"STREAM.CREATE.{cache._bucket.config.stream}", mirror)
    with pytest.raises(BucketMismatch, match="no key-value bucket"):
        cache.get("key")


def test_without_jetstream() -> None:
    with NatsServer(jetstream=False) as server:
        cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token}})
        with pytest.raises(ServerError, match="JetStream is not enabled"):
            cache.get("key")
        bridge.close()


class OldServer:
    """As the session tells of it."""

    epoch = 1
    max_payload = MIB
    server = "nats-server 2.10.25"


NOT_FOUND = b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}'
MADE_BY_IT = b'{"config":{"subjects":["$KV.web.>"],"max_msgs_per_subject":1},"state":{}}'


@pytest.mark.parametrize("found", [NOT_FOUND, MADE_BY_IT])
@pytest.mark.parametrize(
    ("options", "level", "needed"),
    [({}, None, "2.11.8"), ({"persist": "async"}, 1, "2.12.0")],
)
def test_a_server_that_is_too_old_is_named_with_the_one_it_takes(
    options: dict[str, Any], level: int | None, needed: str, found: bytes
) -> None:
    bucket = Bucket(BucketConfig("web", **options), OldServer())
    steps = bucket.open()
    next(steps)
    steps.send(Reply(b"", found))
    account = b'{"type":"x","memory":0,"api":{"total":3,"errors":0%b}}'
    with pytest.raises(ServerTooOld) as caught:
        steps.send(Reply(b"", account % (b',"level":%d' % level if level else b"")))
    assert f"needs nats-server {needed} or newer" in str(caught.value)
    assert "this is nats-server 2.10.25" in str(caught.value)


# Gone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", ["any", "leader"])
@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("get", ["key"], None),
        ("get_many", [["key", "other"]], {}),
        ("set", ["key", 2], None),
        ("add", ["key", 2], True),
        ("set_many", [{"key": 2, "other": 3}], []),
        ("delete", ["key"], False),
        ("delete_many", [["key", "other"]], None),
        ("clear", [], None),
        ("keys", [], []),
        ("touch", ["key"], False),
        ("get_or_set", ["key", 2], 2),
    ],
)
def test_a_deleted_bucket_is_made_again(
    make_cache: MakeCache, operation: str, arguments: list[Any], expected: object, reads: str
) -> None:
    cache = make_cache(OPTIONS={"READS": reads})
    cache.set_many({"key": 1, "other": 1})
    assert api(cache, f"STREAM.DELETE.{cache._bucket.config.stream}")["success"]
    assert getattr(cache, operation)(*arguments) == expected
    cache.set("later", 4)
    assert cache.get("later") == 4
    assert info(cache)["config"]["allow_msg_ttl"] is True


def test_a_deleted_bucket_is_made_again_when_the_clock_is_due(cache: NatsCache) -> None:
    cache.set("key", 1)
    api(cache, f"STREAM.DELETE.{cache._bucket.config.stream}")
    cache._bucket._clock_due = 0
    assert cache.get("key") is None
    cache.set("key", 2)
    assert cache.get("key") == 2


def test_a_bucket_in_memory_is_made_again_after_a_restart(
    own_server: NatsServer, make_cache: MakeCache
) -> None:
    memory = make_cache(on=own_server)
    file = make_cache(on=own_server, OPTIONS={"BUCKET": "on_disk", "STORAGE": "file"})
    for cache in (memory, file):
        cache.set("key", 1)
    own_server.restart()
    assert until_answered(memory, "key") is None
    assert file.get("key") == 1
    for cache in (memory, file):
        cache.set("key", 2)
        assert cache.get("key") == 2


def until_answered(cache: NatsCache, key: str) -> object:
    deadline = monotonic() + 30
    while True:
        try:
            return cache.get(key)
        except Unavailable:
            assert monotonic() < deadline
