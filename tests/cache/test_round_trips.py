"""The round trips of each operation, counted by a proxy between client and server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull, ValueTooLarge
from tests.cache.conftest import MakeTwin
from tests.conftest import PATIENT
from tests.support.operations import CACHE, HELD, LIVES_S
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(server: NatsServer, without_doubts: None) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        process.close()  # before the proxy stops: a session that lost it would try to reconnect


@pytest.fixture
def proxied_cache(make_twin: MakeTwin, proxy: Proxy) -> Any:
    """Return a warmed-up cache behind the proxy with the initial values of the table."""
    make_twin().set(
        "key", 1
    )  # teardown deletes the bucket through this cache, which is not behind the proxy
    proxied_cache = make_twin(location=proxy.url, OPTIONS=PATIENT)
    proxied_cache.set_many(HELD, LIVES_S)
    return proxied_cache


Operation = Callable[[Any], object]
refused = {"key": "x" * 4000, **{f"new-{number}": number for number in range(50)}}


@pytest.mark.parametrize("row", CACHE)
def test_every_operation_takes_its_documented_round_trips(
    proxied_cache: Any, proxy: Proxy, row: str
) -> None:
    call = CACHE[row].at(proxied_cache.get_with_revision("key")[1])
    before = proxy.round_trips
    assert call.result == call.sync(proxied_cache)
    assert call.takes(proxy.round_trips - before)
    assert proxied_cache.get(call.key) == call.after


@pytest.mark.parametrize(
    ("round_trips", "operation"),
    [
        pytest.param(1, lambda cache: cache.set("key", "x" * 9000), id="too large"),
        pytest.param(2, lambda cache: cache.set("new", 1), id="no room"),
        pytest.param(3, lambda cache: cache.set("key", "x" * 4000), id="no room over a value"),
        pytest.param(3, lambda cache: cache.set_many(refused), id="set_many without room"),
    ],
)
def test_a_refused_set_takes_its_expected_round_trips(
    make_twin: MakeTwin, proxy: Proxy, round_trips: int, operation: Operation
) -> None:
    options = {"EVICT": False, "MAX_ENTRIES": 4, "MAX_BYTES": 10_000, "MAX_VALUE_SIZE": 8000}
    make_twin(OPTIONS=options).set_many({"key": 1, "a": "x" * 3000, "b": "x" * 3000, "c": 1})
    proxied_cache = make_twin(location=proxy.url, OPTIONS={**PATIENT, **options})
    proxied_cache.get("key")
    before = proxy.round_trips
    try:
        operation(proxied_cache)
    except (BucketFull, ValueTooLarge):
        pass
    assert proxy.round_trips - before == round_trips


def test_a_batch_is_split_before_the_server_drops_a_client_that_falls_behind(
    proxied_cache: Any, proxy: Proxy
) -> None:
    values = {f"large-{number}": bytes([number]) * 600_000 for number in range(12)}
    proxied_cache.set_many(values)
    before = proxy.round_trips
    assert proxied_cache.get_many(values) == values
    assert proxy.round_trips - before == 2


def test_a_warm_cache_sends_nothing_but_the_operations(proxied_cache: Any, proxy: Proxy) -> None:
    before = proxy.requests
    for _ in range(3):
        proxied_cache.get("key")
    assert proxy.requests - before == 3


def test_threads_share_one_connection(proxied_cache: Any, proxy: Proxy) -> None:
    begin = threading.Barrier(16)
    found = []

    def work() -> None:
        begin.wait()
        found.append([proxied_cache.plain.get("key") for _ in range(5)])

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1] * 5] * 16
    assert proxy.connections == 1


def test_aliases_share_one_connection_that_survives_close(
    proxied_cache: Any, make_twin: MakeTwin, proxy: Proxy
) -> None:
    for number in range(5):
        another = make_twin(location=proxy.url, KEY_PREFIX=str(number), OPTIONS=PATIENT)
        another.set("key", number)
        another.close()
        assert another.get("key") == number
    assert proxy.connections == 1
