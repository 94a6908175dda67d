"""A network between readers and server that cuts, swallows and delays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.support.near_load import ROUNDS, Load, soon
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 * ROUNDS)]


@pytest.fixture
def proxy(own_server: NatsServer) -> Iterator[Proxy]:
    with Proxy(own_server.port, delay=0.0005) as running:
        yield running


@pytest.fixture
def load(own_server: NatsServer, proxy: Proxy) -> Iterator[Load]:
    """Readers behind the proxy, and writers that notice nothing of it."""
    with Load(own_server, read_through=proxy.url) as running:
        yield running


def test_cut(load: Load, proxy: Proxy) -> None:
    for _ in range(3 * ROUNDS):
        with load.flushing():
            proxy.cut()
    load.check()


def test_half_closed(load: Load, proxy: Proxy) -> None:
    for _ in range(2 * ROUNDS):
        with load.flushing():
            proxy.half_close()
    load.check()


def test_nothing_passes(load: Load, proxy: Proxy) -> None:
    """For longer than MAX_STALE, and then all that was held back, and as old as that."""
    for _ in range(ROUNDS):
        proxy.freeze()
        frozen = time.monotonic()
        load.wait_until_bypassed(frozen)
        time.sleep(max(0, frozen + 2 - time.monotonic()))
        proxy.thaw()
        load.wait_until_served()
    load.check()


def test_nothing_passes_ever_again(load: Load, proxy: Proxy) -> None:
    """Half a connection: nobody is told that it has ended, until nothing answers."""
    for _ in range(ROUNDS):
        proxy.freeze()
        frozen = time.monotonic()
        with load.flushing():
            load.wait_until_bypassed(frozen)
            assert soon(load.are_cut_off)
            proxy.cut()
            proxy.thaw()
    load.check()


def test_nobody_is_let_in(load: Load, proxy: Proxy) -> None:
    with load.flushing():
        proxy.refusing = True
        proxy.cut()
        load.wait_until_bypassed(time.monotonic())
        proxy.refusing = False
    load.check()


def test_everything_is_slow(own_server: NatsServer, proxy: Proxy) -> None:
    """By less than MAX_STALE: copies are served all the time, and are that much out of date."""
    with Load(own_server, read_through=proxy.url, keys=2, rare=30, pause=0.3) as load:
        proxy.delay = 0.1
        load.wait_for_writes(12)  # three times every key
        load.wait_until_lagging(0.1)
        load.wait_until_served()
        outcome = load.check()
    assert outcome.verdict.stalest > 0.05


@pytest.mark.parametrize("misses", [False, True])
def test_what_is_not_read_meanwhile(own_server: NatsServer, proxy: Proxy, misses: bool) -> None:
    """A copy that nobody asks for until the feed is whole again: the change was not told."""
    options = {"BUCKET": "gap", "TOKEN": own_server.token}
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
    bridge.close()
