"""A cluster whose servers get a JetStream domain one by one, while a process is connected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.counters.conftest import api_level
from tests.servers import eventually
from tests.support.cluster import Cluster


def lead(cluster: Cluster, cache: NatsCache, stream: str, server: NatsServer) -> None:
    """Have a server lead a stream."""

    def leads() -> bool:
        if cluster.leader(stream).name == server.name:
            return True
        # The answer is not waited for: a server that is no leader any more gives none.
        wanted = json.dumps({"placement": {"preferred": server.name}}).encode()
        subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}"
        cache.session.post(cache.bucket.stream.api_request(subject, wanted))
        return False

    assert eventually(leads)


def test_writes_go_on_while_the_servers_of_a_cluster_get_a_domain(settings: Any) -> None:
    with Cluster(3) as cluster:
        connected, changed, unchanged = cluster.servers
        if api_level(connected) < 2:
            pytest.skip("the server is too old for counters")
        place = {"TOKEN": cluster.token, "REPLICAS": 3, **PATIENT}
        entry = {"LOCATION": connected.url, "STREAM": "ROLLED", "DEADLINE": 60, **place}
        settings.NATS_COUNTERS = {"default": entry}
        cache = NatsCache(connected.url, {"OPTIONS": {"BUCKET": "rolled", **place}})
        counter, expected = Counter("home"), 1
        assert counter.incr() == 1
        cache.set("key", 1)
        epoch = cache.session.epoch
        changed.stop()
        changed._config += "\njetstream { domain: late }"
        changed.start()
        cluster.mend()
        for server in (changed, unchanged):
            for stream in ("KV_rolled", "ROLLED"):
                lead(cluster, cache, stream, server)
            cache.set("key", server.name)
            assert cache.get("key") == server.name
            assert cache.add(server.name, 1)
            assert cache.incr(server.name) == 2
            assert cache.set_many({"a": 1, "b": 2}) == []
            assert cache.delete("key")
            cache.clear()
            expected += 1
            assert counter.incr() == expected
            lead(cluster, cache, "ROLLED", unchanged if server is changed else changed)
            counter.incr_later()
            Counters().flush()
            expected += 1
            assert counter.value() == expected
        assert cache.session.epoch == epoch  # no new connection has shown that anything is changed
        process.close()
