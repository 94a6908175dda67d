"""Near caches behind a network that cuts connections, swallows and delays data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import PATIENT
from tests.support.near_load import ALONE, MAX_STALE, ROUNDS, Load, soon
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.faults, *ALONE]


@pytest.fixture
def proxy(own_server: NatsServer) -> Iterator[Proxy]:
    with Proxy(own_server.port, delay=0.0005) as running:
        yield running


@pytest.fixture
def load(own_server: NatsServer, proxy: Proxy) -> Iterator[Load]:
    """Start readers behind the proxy, and writers that connect to the server directly."""
    with Load(own_server, read_through=proxy.url) as running:
        yield running


def test_a_cut_connection_flushes_the_copies(load: Load, proxy: Proxy) -> None:
    for _ in range(3 * ROUNDS):
        with load.flushing():
            proxy.cut()
    load.check()


def test_a_half_closed_connection_flushes_the_copies(load: Load, proxy: Proxy) -> None:
    for _ in range(2 * ROUNDS):
        with load.flushing():
            proxy.half_close()
    load.check()


def test_copies_are_bypassed_while_the_network_holds_all_data_back(
    load: Load, proxy: Proxy
) -> None:
    """The network holds all data back for longer than MAX_STALE, then delivers it late."""
    for _ in range(ROUNDS):
        proxy.freeze()
        frozen = time.monotonic()
        load.wait_until_bypassed(frozen)
        time.sleep(max(0, frozen + MAX_STALE + 1 - time.monotonic()))
        proxy.thaw()
        load.wait_until_served()
    load.check()


def test_copies_are_bypassed_and_flushed_after_a_half_open_connection(
    load: Load, proxy: Proxy
) -> None:
    """No end of the connection is signalled; the client notices that pings get no answer."""
    for _ in range(ROUNDS):
        proxy.freeze()
        frozen = time.monotonic()
        with load.flushing():
            load.wait_until_bypassed(frozen)
            assert soon(load.are_cut_off)
            proxy.cut()
            proxy.thaw()
    load.check()


def test_copies_are_flushed_when_the_server_refuses_connections(load: Load, proxy: Proxy) -> None:
    with load.flushing():
        proxy.refusing = True
        proxy.cut()
        load.wait_until_bypassed(time.monotonic())
        proxy.refusing = False
    load.check()


def test_a_slow_network_serves_copies_within_max_stale(
    own_server: NatsServer, proxy: Proxy
) -> None:
    """The delay is less than MAX_STALE: copies are served, and are out of date by the delay."""
    near = {"MAX_STALE": 10.0}
    options = {"REQUEST_TIMEOUT": 30.0}
    with Load(
        own_server,
        options=options,
        near=near,
        read_through=proxy.url,
        keys=2,
        rare=30,
        pause=0.3,
    ) as load:
        proxy.delay = 0.5
        load.wait_for_writes(12)  # three times every key
        load.wait_until_lagging(0.4)
        load.wait_until_served()
        load.wait_until_behind()
        load.check(10.0)


@pytest.mark.parametrize("misses", [False, True])
def test_a_change_during_an_outage_is_seen_by_a_later_first_read(
    own_server: NatsServer, proxy: Proxy, misses: bool
) -> None:
    """The key is not read until the feed is whole again, and the feed did not send its change."""
    options = {"BUCKET": "gap", "TOKEN": own_server.token, **PATIENT}
    near = {"MAX_STALE": 30.0, "MISSES": misses}
    writer = NatsCache(own_server.url, {"OPTIONS": options})
    reader = NatsCache(proxy.url, {"OPTIONS": {**options, "NEAR_CACHE": near}})
    counts = reader.near
    assert counts is not None

    def copied(key: str) -> bool:
        hits = counts.hits
        with suppress(NatsError):
            reader.get(key)
        return counts.hits > hits

    writer.set_many({"key": "old", "other": 1}, None)
    assert soon(lambda: copied("key"))
    proxy.refusing = True
    proxy.cut()
    assert soon(lambda: counts.state != "whole")
    writer.set("key", "new", None)
    proxy.refusing = False
    assert soon(lambda: copied("other"))
    assert reader.get("key") == "new"
    process.close()
