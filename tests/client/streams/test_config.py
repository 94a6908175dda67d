"""The options that buckets and counters share, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.client.counters.config import CounterConfig
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.entry import Write
from django_nats.client.streams.differences import differences, update
from django_nats.client.streams.stream import Stream
from django_nats.client.transport.config import ConnectionConfig
from django_nats.devserver import NatsServer
from django_nats.exceptions import ServerError
from tests.conftest import PATIENT
from tests.counters.conftest import api_level
from tests.support.cluster import Cluster

MIB = 1024 * 1024
LIMITED = """
server_tags: ["ssd", "eu"]
accounts {
  APP: {
    users: [{user: app, password: secret}]
    jetstream: {max_file: 1GiB, max_memory: 1GiB, max_bytes_required: true}
  }
}
"""


@pytest.fixture(params=[BucketConfig, CounterConfig])
def kind(request: pytest.FixtureRequest, server: NatsServer) -> type:
    if request.param is CounterConfig and api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def limited() -> Iterator[NatsServer]:
    """Start a server with tags, whose account requires a limit of bytes for every stream."""
    with NatsServer(token="", config=LIMITED) as server:
        yield server
        process.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


def connection(server: NatsServer) -> ConnectionConfig:
    return ConnectionConfig(
        (server.url,), user="app", password="secret", connect_timeout=PATIENT["CONNECT_TIMEOUT"]
    )


def stream_of(server: NatsServer, kind: type, name: str, **options: Any) -> Stream[Any]:
    options = {"max_bytes": MIB, "storage": "file", "request_timeout": 30.0, **options}
    if kind is BucketConfig:
        return process.bucket(connection(server), BucketConfig(name, **options)).stream
    config = CounterConfig(name, name.lower(), **options)
    return process.counter_stream(connection(server), config).stream


def run(server: NatsServer, steps: Any) -> Any:
    return drivers.run(process.session(connection(server)), steps)


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"max_bytes": 2 * MIB}, "max_bytes", 2 * MIB),
        ({"compression": "s2"}, "compression", "s2"),
        ({"compression": "s2", "storage": "memory"}, "compression", "s2"),
        ({"placement_tags": ("ssd",)}, "placement", {"tags": ["ssd"]}),
        ({"description": "Pages"}, "description", "Pages"),
    ],
    ids=str,
)
def test_options_configure_the_stream(
    limited: NatsServer, kind: type, options: dict[str, Any], field: str, expected: object
) -> None:
    name = f"created-{kind.__name__}-{field}-{options.get('storage', 'file')}"
    stream = stream_of(limited, kind, name, **options)
    document = run(limited, stream.opening.open())
    assert document["config"][field] == expected
    assert differences(stream.config, document["config"], document["state"]) == []


def test_metadata_is_stored_beside_the_servers_own(limited: NatsServer, kind: type) -> None:
    stream = stream_of(limited, kind, f"meta-{kind.__name__}", metadata=(("team", "web"),))
    document = run(limited, stream.opening.open())
    metadata = document["config"]["metadata"]
    assert metadata["team"] == "web"
    assert all(name == "team" or name.startswith("_nats") for name in metadata)
    assert differences(stream.config, document["config"], document["state"]) == []


def test_what_differs_is_changed_and_other_metadata_stays(limited: NatsServer, kind: type) -> None:
    name = f"changed-{kind.__name__}"
    before = stream_of(
        limited,
        kind,
        name,
        compression="s2",
        placement_tags=("ssd",),
        metadata=(("team", "web"), ("cost", "7"), ("tool", "terraform")),
    )
    run(limited, before.opening.open())
    after = stream_of(
        limited,
        kind,
        name,
        max_bytes=4 * MIB,
        placement_tags=("eu",),
        description="Pages",
        metadata=(("team", "shop"), ("cost", "7"), ("owner", "Ada")),
    )
    existing = run(limited, after.opening.info())
    found = differences(after.config, existing["config"], existing["state"])

    assert {each.field: each.fixable for each in found} == dict.fromkeys(
        ["description", "max_bytes", "compression", "placement", "metadata"], True
    )
    (metadata,) = [each for each in found if each.field == "metadata"]
    assert metadata.texts == (
        "{'team': 'web'}",
        "{'team': 'shop', 'owner': 'Ada'}",
    )
    document = run(limited, update(after, existing["config"]))
    assert differences(after.config, document["config"], document["state"]) == []
    stored = document["config"]["metadata"]
    assert {name: text for name, text in stored.items() if not name.startswith("_nats")} == {
        "team": "shop",
        "cost": "7",
        "owner": "Ada",
        "tool": "terraform",
    }


def test_an_account_that_requires_max_bytes_is_named_as_the_reason(
    limited: NatsServer, kind: type
) -> None:
    stream = stream_of(limited, kind, f"unlimited-{kind.__name__}", max_bytes=None)
    with pytest.raises(ServerError) as caught:
        run(limited, stream.opening.open())
    assert str(caught.value).startswith(f"The {stream.config.title} cannot be created: ")
    assert "account requires a stream config to have max bytes set" in str(caught.value)
    assert str(caught.value).endswith("Set MAX_BYTES.")


def test_reads_and_placement_in_a_cluster(cluster: Cluster, kind: type) -> None:
    options = {"replicas": 3, "placement_cluster": "c", "reads": "leader", "max_bytes": MIB}
    where = ConnectionConfig(
        tuple(cluster.urls), token=cluster.token, connect_timeout=PATIENT["CONNECT_TIMEOUT"]
    )
    name = f"placed-{kind.__name__}"
    if kind is BucketConfig:
        bucket = process.bucket(where, BucketConfig(name, request_timeout=30.0, **options))
        stream, session = bucket.stream, process.session(where)
        drivers.run(session, bucket.put("key", Write(b"1", None, None)))
        entry = drivers.run(session, bucket.get("key"))
        assert entry is not None
        assert entry.payload == b"1"
    else:
        config = CounterConfig(name, "placed", request_timeout=30.0, deadline=30.0, **options)
        counters = process.counter_stream(where, config)
        stream, session = counters.stream, process.session(where)
        assert drivers.run(session, counters.incr("a.b", 2)) == 2
        assert drivers.run(session, counters.value("a.b")) == 2
        assert drivers.run(session, counters.matching("a.*")) == {"a.b": 2}
    document = drivers.run(session, stream.opening.info())
    assert document["config"]["placement"] == {"cluster": "c"}
    assert differences(stream.config, document["config"], document["state"]) == []


def test_a_limit_below_what_is_stored_is_not_fixable(kind: type) -> None:
    config = kind("web", max_bytes=100)
    existing = kind("web").stream_config()
    for stored, fixable in ((100, True), (101, False)):
        (found,) = differences(config, existing, {"bytes": stored})
        assert (found.field, found.fixable) == ("max_bytes", fixable)
