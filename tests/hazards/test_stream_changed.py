"""Streams that are changed while processes use them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.client.streams import facts
from django_nats.client.transport.config import ConnectionConfig
from tests.conftest import PATIENT
from tests.servers import request
from tests.support.cluster import Cluster

pytestmark = pytest.mark.faults

ROUNDS = 1500


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as running:
        yield running
        process.close()


def update(cluster: Cluster, stream: str, **change: Any) -> None:
    subject = f"$JS.API.STREAM.{{}}.{stream}"
    info: Any = request(cluster.servers[0], subject.format("INFO"))
    answer = request(cluster.servers[0], subject.format("UPDATE"), {**info["config"], **change})
    assert "config" in answer, answer


@pytest.fixture
def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process never look at its streams again, so that it believes in one replica."""
    monkeypatch.setattr(facts.Facts, "_note_update", lambda self, _: None)
    monkeypatch.setattr(facts, "FACTS_S", 3600.0)


@pytest.mark.usefixtures("believing")
def test_a_bucket_raised_to_three_replicas_keeps_own_writes_readable(cluster: Cluster) -> None:
    name = f"raised_{secrets.token_hex(4)}"
    options = {"BUCKET": name, "TOKEN": cluster.token, **PATIENT}
    cache = NatsCache(cluster.urls, {"OPTIONS": options})
    cache.set("key", 0)
    update(cluster, f"KV_{name}", num_replicas=3)
    cluster.wait_for_replicas(f"KV_{name}")
    missed = 0
    for number in range(ROUNDS):
        cache.set("key", number)
        missed += cache.get("key") != number
        assert cache.add(f"new-{number}", number)
        missed += cache.get(f"new-{number}") != number
        many = {f"many-{each}": number for each in range(3)}
        cache.set_many(many)
        missed += cache.get_many(list(many)) != many
        cache.delete("many-1")
        missed += cache.get_many(["many-1", "many-2"]) != {"many-2": number}
    cache.clear()
    missed += cache.get_many([f"new-{each}" for each in range(ROUNDS)]) != {}
    assert missed == 0
    assert not cache.bucket.stream.opening.replicated


@pytest.mark.usefixtures("believing")
def test_no_counter_of_a_raised_stream_is_below_what_incr_returned(cluster: Cluster) -> None:
    name = f"RAISED_{secrets.token_hex(4)}"
    where = ConnectionConfig(
        tuple(cluster.urls), token=cluster.token, connect_timeout=PATIENT["CONNECT_TIMEOUT"]
    )
    config = CounterConfig(name, name.lower(), request_timeout=30.0, deadline=60.0)
    counters = process.counter_stream(where, config)
    session = process.session(where)

    def run(steps: Any) -> Any:
        return drivers.run(session, steps)

    run(CounterStream.incr(counters, "hits", 1))
    update(cluster, name, num_replicas=3)
    cluster.wait_for_replicas(name)
    elsewhere = replace(where, name="others")
    others, their_session = process.counter_stream(elsewhere, config), process.session(elsewhere)
    below = 0
    for _ in range(ROUNDS):
        total = run(counters.incr("hits", 1))
        below += run(counters.value("hits")) < total
        total = run(counters.incr("more", 1))
        below += run(counters.get_many(["hits", "more"]))["more"] < total
        below += run(counters.matching("*"))["more"] < total
        drivers.run(their_session, others.incr("more", 1))
        run(counters.reset("more"))
        below += run(counters.value("more")) != 0
    assert below == 0
    assert not counters.stream.opening.replicated
