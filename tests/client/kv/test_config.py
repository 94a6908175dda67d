"""Buckets on a real server: their configuration, their limits, and their loss."""

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
from django_nats.client import drivers, process
from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.protocol.steps import Steps
from django_nats.client.protocol.wire import Reply, compact_json
from django_nats.client.streams.differences import differences
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    BucketMismatch,
    ServerError,
    ServerTooOld,
    Unavailable,
    ValueTooLarge,
)
from django_nats.serializers import JSONSerializer
from tests.conftest import PATIENT, MakeCache, api
from tests.support.answers import stream_document
from tests.support.cluster import Cluster
from tests.support.patience import hurry

MIB = 1024 * 1024


def info(cache: NatsCache) -> dict[str, Any]:
    return api(cache, f"STREAM.INFO.KV_{cache.bucket.config.name}")


def allow_slow_answers(cache: NatsCache) -> None:
    """Wait for slow answers, although the bucket is configured with a short REQUEST_TIMEOUT."""
    hurry(cache, PATIENT["REQUEST_TIMEOUT"])


def config_on_server(cache: NatsCache) -> dict[str, Any]:
    """Return the stream's configuration on the server after the cache's first operation."""
    cache.get("key")
    config: dict[str, Any] = info(cache)["config"]
    return config


# Created from settings -----------------------------------------------------------------------


def test_a_bucket_suits_a_cache_and_other_clients(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"REQUEST_TIMEOUT": 1.0})  # the default
    allow_slow_answers(cache)
    config = config_on_server(cache)
    name = cache.bucket.config.name
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
def test_options_configure_the_stream(
    make_cache: MakeCache, options: dict[str, object], expected: dict[str, object]
) -> None:
    cache = make_cache(OPTIONS=options)
    allow_slow_answers(cache)
    config = config_on_server(cache)
    assert config.items() >= expected.items()
    document = info(cache)
    assert differences(cache.bucket.config, config, document["state"]) == []
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_persist_needs_a_newer_server(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"STORAGE": "file", "PERSIST": "async"})
    if api(cache, "INFO")["api"]["level"] < 2:
        with pytest.raises(ServerTooOld, match=r"nats-server 2\.12\.0 or newer"):
            cache.get("key")
    else:
        config = config_on_server(cache)
        assert config["persist_mode"] == "async"
        assert differences(cache.bucket.config, config, {}) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"REPLICAS": 3}, {"num_replicas": 3}),
        ({"REPLICAS": 3, "STORAGE": "file"}, {"num_replicas": 3, "storage": "file"}),
        ({"PLACEMENT": {"CLUSTER": "c"}}, {"placement": {"cluster": "c"}}),
    ],
    ids=str,
)
def test_options_configure_the_stream_of_a_cluster(
    cluster: Cluster, options: dict[str, object], expected: dict[str, object]
) -> None:
    bucket = f"test_{secrets.token_hex(6)}"
    options = {"BUCKET": bucket, "TOKEN": cluster.token, **PATIENT, **options}
    cache = NatsCache(cluster.urls, {"OPTIONS": options})
    config = config_on_server(cache)
    assert config.items() >= expected.items()
    assert differences(cache.bucket.config, config, info(cache)["state"]) == []
    assert cache.bucket.stream.opening.replicated is (config["num_replicas"] > 1)
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_placement_tags_are_used() -> None:
    with NatsServer(config='server_tags: ["ssd", "eu"]') as server:
        options = {"BUCKET": "placed", "TOKEN": server.token, **PATIENT}
        cache = NatsCache(server.url, {"OPTIONS": {**options, "PLACEMENT": {"TAGS": ["ssd"]}}})
        config = config_on_server(cache)
        assert config["placement"] == {"tags": ["ssd"]}
        assert differences(cache.bucket.config, config, {}) == []
        process.close()


def test_reads_leader_asks_the_leader(make_cache: MakeCache) -> None:
    """Only the stream's leader answers STREAM.MSG.GET."""
    cache = make_cache(OPTIONS={"READS": "leader"})
    cache.set_many({"one": 1, "two": 2})
    steps = cache.bucket.get(":1:one")
    asked = record_subjects(cache, steps)
    assert asked == [f"$JS.API.STREAM.MSG.GET.KV_{cache.bucket.config.name}"]
    assert cache.get("one") == 1
    assert cache.get_many(["one", "two", "three"]) == {"one": 1, "two": 2}
    anywhere = make_cache()
    (subject,) = record_subjects(anywhere, anywhere.bucket.get(":1:one"))
    assert subject.startswith("$JS.API.DIRECT.GET.")


def record_subjects(cache: NatsCache, steps: Steps[Any]) -> list[str]:
    """Return the subjects of the requests that an operation on an open bucket sends."""
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

    drivers.run(cache.session, recording())
    return subjects


def test_the_error_names_a_bucket_that_cannot_be_created(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"REPLICAS": 3})
    with pytest.raises(ServerError, match=r"bucket test_\w+ cannot be created: .*non-clustered"):
        cache.get("key")


def stored_size(cache: NatsCache, key: str) -> int:
    """Return the size of a key's message in bytes, with headers."""
    message = api(
        cache,
        f"STREAM.MSG.GET.KV_{cache.bucket.config.name}",
        {"last_by_subj": f"$KV.{cache.bucket.config.name}.=.1.{key}"},
    )["message"]
    return sum(len(base64.b64decode(message.get(part, ""))) for part in ("hdrs", "data"))


@pytest.mark.parametrize("timeout", [300, None])
def test_max_value_size_includes_headers(make_cache: MakeCache, timeout: int | None) -> None:
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
    assert cache.get("key") is None
    with pytest.raises(ValueTooLarge):
        cache.add("other", "x" * 2000)
    assert cache.set_many({"small": 1, "large": "x" * 2000}) == ["large"]
    assert cache.get_many(["small", "large"]) == {"small": 1}


def test_max_payload_limits_values_too() -> None:
    """A frame over it would make the server drop the client."""
    with NatsServer(config="max_payload: 4000") as server:
        login = {"BUCKET": "small", "TOKEN": server.token}
        options = {**login, "SERIALIZER": JSONSerializer, **PATIENT}
        cache = NatsCache(server.url, {"OPTIONS": options})
        cache.set("key", "")
        room = 4000 - stored_size(cache, "key")
        epoch = cache.session.epoch
        cache.set("key", "x" * room)
        with pytest.raises(ValueTooLarge, match="at most 4000"):
            cache.set("key", "x" * (room + 1))
        assert cache.get("key") is None
        assert cache.session.epoch == epoch
        keys = [f"key-{number:0100}" for number in range(200)]
        assert cache.set_many(dict.fromkeys(keys, 1)) == []
        assert cache.get_many(keys) == dict.fromkeys(keys, 1)
        assert cache.session.epoch == epoch
        process.close()


def test_the_limit_of_an_existing_bucket_applies(make_cache: MakeCache) -> None:
    first = make_cache(OPTIONS={"MAX_VALUE_SIZE": 2000})
    first.get("key")
    second = make_cache(OPTIONS={"MAX_VALUE_SIZE": 4000})
    with pytest.raises(ValueTooLarge, match="at most 2000"):
        second.set("key", "x" * 3000)


# Created by others ---------------------------------------------------------------------------


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[Any]:
    client = await nats.connect(server.url, token=server.token, connect_timeout=60)
    try:
        yield client.jetstream(timeout=60)
    finally:
        await client.close()


async def test_the_error_for_an_unsuitable_bucket_says_what_to_do(
    server: NatsServer, make_cache: MakeCache
) -> None:
    cache = make_cache()
    name = cache.bucket.config.name
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
    ("change", "expected"),
    [
        ({"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5, not 1"),
        ({"max_msgs_per_subject": -1}, "max_msgs_per_subject is -1, not 1"),
        ({"allow_direct": False}, "allow_direct is False, not True"),
        ({"allow_rollup_hdrs": False}, "allow_rollup_hdrs is False, not True"),
        ({"allow_msg_ttl": False}, "allow_msg_ttl is False, not True"),
        ({"subjects": ["elsewhere.>"]}, "is not a key-value bucket: it holds ['elsewhere.>']"),
    ],
    ids=str,
)
def test_an_unsuitable_stream_is_refused(
    make_cache: MakeCache, change: dict[str, Any], expected: str
) -> None:
    cache = make_cache()
    config = cache.bucket.config
    unique = {"subjects": [f"{config.name}.>"]} if "subjects" in change else {}
    answer = api(
        cache, f"STREAM.CREATE.{config.stream}", {**config.stream_config(), **change, **unique}
    )
    assert "error" not in answer
    with pytest.raises(BucketMismatch) as caught:
        cache.get("key")
    assert expected.replace("elsewhere", config.name) in str(caught.value)


def test_a_mirror_is_refused(make_cache: MakeCache) -> None:
    origin, cache = make_cache(), make_cache(OPTIONS={"BUCKET": f"m_{secrets.token_hex(6)}"})
    origin.get("key")
    mirror = {"name": cache.bucket.config.stream, "mirror": {"name": origin.bucket.config.stream}}
    assert "error" not in api(cache, f"STREAM.CREATE.{cache.bucket.config.stream}", mirror)
    with pytest.raises(
        BucketMismatch, match=f"is a mirror of {origin.bucket.config.stream}: purges"
    ):
        cache.get("key")


def test_a_server_without_jetstream_raises_server_error() -> None:
    with NatsServer(jetstream=False) as server:
        cache = NatsCache(server.url, {"OPTIONS": {"TOKEN": server.token, **PATIENT}})
        with pytest.raises(ServerError, match="JetStream is not enabled"):
            cache.get("key")
        process.close()


class OldServer:
    """The session's view of a server that is too old."""

    epoch = epoch_of_requests = 1
    connect_timeout = 1.0
    max_payload = MIB
    server = "nats-server 2.10.25"


NOT_FOUND = b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}'
CREATED_BY_OLD_SERVER = compact_json(
    {
        **stream_document(BucketConfig("web")),
        "config": {
            "name": "KV_web",
            "storage": "memory",
            "num_replicas": 1,
            "subjects": ["$KV.web.>"],
            "max_msgs_per_subject": 1,
        },
    }
)
REPLY_WITHOUT_NAME = b'{"config":{"subjects":["$KV.web.>"],"max_msgs_per_subject":1},"state":{}}'


@pytest.mark.usefixtures("clock")  # after a slow answer, the server would be asked again
@pytest.mark.parametrize("found", [NOT_FOUND, CREATED_BY_OLD_SERVER, REPLY_WITHOUT_NAME])
@pytest.mark.parametrize(
    ("options", "level", "needed"),
    [({}, None, "2.11.8"), ({"persist": "async"}, 1, "2.12.0")],
)
def test_the_error_names_an_old_server_and_the_version_needed(
    options: dict[str, Any], level: int | None, needed: str, found: bytes
) -> None:
    bucket = Bucket(BucketConfig("web", **options), OldServer())
    steps = bucket.stream.opening.open()
    next(steps)
    steps.send(Reply(b"", found))
    account = b'{"type":"x","memory":0,"api":{"total":3,"errors":0%b}}'
    with pytest.raises(ServerTooOld) as caught:
        steps.send(Reply(b"", account % (b',"level":%d' % level if level else b"")))
    assert f"needs nats-server {needed} or newer" in str(caught.value)
    assert "this is nats-server 2.10.25" in str(caught.value)


# Deleted -------------------------------------------------------------------------------------


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
def test_a_deleted_bucket_is_recreated(
    make_cache: MakeCache, operation: str, arguments: list[Any], expected: object, reads: str
) -> None:
    cache = make_cache(OPTIONS={"READS": reads})
    cache.set_many({"key": 1, "other": 1})
    assert api(cache, f"STREAM.DELETE.{cache.bucket.config.stream}")["success"]
    assert getattr(cache, operation)(*arguments) == expected
    cache.set("later", 4)
    assert cache.get("later") == 4
    assert info(cache)["config"]["allow_msg_ttl"] is True


def test_a_deleted_bucket_is_recreated_when_the_clock_is_due(cache: NatsCache) -> None:
    cache.set("key", 1)
    api(cache, f"STREAM.DELETE.{cache.bucket.config.stream}")
    cache.bucket.clock.due = 0
    assert cache.get("key") is None
    cache.set("key", 2)
    assert cache.get("key") == 2


def test_a_bucket_in_memory_is_recreated_after_a_restart(
    own_server: NatsServer, make_cache: MakeCache
) -> None:
    memory = make_cache(on=own_server)
    file = make_cache(on=own_server, OPTIONS={"BUCKET": "on_disk", "STORAGE": "file"})
    for cache in (memory, file):
        cache.set("key", 1)
    own_server.restart()
    assert get_once_available(memory, "key") is None
    assert file.get("key") == 1
    for cache in (memory, file):
        cache.set("key", 2)
        assert cache.get("key") == 2


def get_once_available(cache: NatsCache, key: str) -> object:
    deadline = monotonic() + 30
    while True:
        try:
            return cache.get(key)
        except Unavailable:
            assert monotonic() < deadline
