"""What an operation costs on the wire, counted between client and server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.client import bridge
from django_nats.devserver import NatsServer
from tests.cache.conftest import MakeTwin
from tests.conftest import PATIENT
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running
        bridge.close()  # before the proxy goes: a session that lost it would try to come back


@pytest.fixture
def far(make_twin: MakeTwin, proxy: Proxy) -> Any:
    """A warmed-up cache on the other side of the proxy, with ``key`` and a hundred others set."""
    make_twin().set("key", 1, 1000)  # the bucket goes with the cache that is not behind the proxy
    far = make_twin(location=proxy.url, OPTIONS=PATIENT)
    far.set_many(hundred, 1000)
    return far


hundred = {f"key-{number}": number for number in range(100)}

Operation = Callable[[Any], object]


@pytest.mark.parametrize(
    ("round_trips", "operation"),
    [
        pytest.param(1, lambda cache: cache.get("key"), id="get"),
        pytest.param(1, lambda cache: cache.get("absent"), id="get missing"),
        pytest.param(1, lambda cache: cache.has_key("key"), id="has_key"),
        pytest.param(1, lambda cache: cache.set("key", 2), id="set"),
        pytest.param(1, lambda cache: cache.set("key", 2, 0), id="set timeout=0"),
        pytest.param(1, lambda cache: cache.add("new", 2), id="add"),
        pytest.param(2, lambda cache: cache.add("key", 2), id="add over a value"),
        pytest.param(1, lambda cache: cache.get_many(hundred), id="get_many"),
        pytest.param(1, lambda cache: cache.set_many(hundred), id="set_many"),
        pytest.param(1, lambda cache: cache.delete_many(hundred), id="delete_many"),
        pytest.param(2, lambda cache: cache.incr("key"), id="incr"),
        pytest.param(2, lambda cache: cache.touch("key"), id="touch"),
        pytest.param(2, lambda cache: cache.delete("key"), id="delete"),
        pytest.param(1, lambda cache: cache.delete("absent"), id="delete missing"),
        pytest.param(1, lambda cache: cache.touch("absent"), id="touch missing"),
        pytest.param(1, lambda cache: cache.get_or_set("key", 2), id="get_or_set"),
        pytest.param(2, lambda cache: cache.get_or_set("new", 2), id="get_or_set missing"),
        pytest.param(2, lambda cache: cache.clear(), id="clear"),
        pytest.param(0, lambda cache: cache.get_many([]), id="get_many nothing"),
        pytest.param(0, lambda cache: cache.set_many({}), id="set_many nothing"),
        pytest.param(0, lambda cache: cache.delete_many([]), id="delete_many nothing"),
    ],
)
def test_round_trips(far: Any, proxy: Proxy, round_trips: int, operation: Operation) -> None:
    before = proxy.round_trips
    operation(far)
    assert proxy.round_trips - before == round_trips


def test_a_batch_is_split_before_the_server_drops_a_client_that_falls_behind(
    far: Any, proxy: Proxy
) -> None:
    values = {f"large-{number}": bytes([number]) * 600_000 for number in range(12)}
    far.set_many(values)
    before = proxy.round_trips
    assert far.get_many(values) == values
    assert proxy.round_trips - before == 2


def test_a_warm_cache_sends_nothing_but_the_operations(far: Any, proxy: Proxy) -> None:
    before = proxy.requests
    for _ in range(3):
        far.get("key")
    assert proxy.requests - before == 3


def test_one_connection_however_many_threads(far: Any, proxy: Proxy) -> None:
    begin = threading.Barrier(16)
    found = []

    def work() -> None:
        begin.wait()
        found.append([far.plain.get("key") for _ in range(5)])

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1] * 5] * 16
    assert proxy.connections == 1


def test_one_connection_however_many_aliases_and_closes(
    far: Any, make_twin: MakeTwin, proxy: Proxy
) -> None:
    for number in range(5):
        another = make_twin(location=proxy.url, KEY_PREFIX=str(number), OPTIONS=PATIENT)
        another.set("key", number)
        another.close()
        assert another.get("key") == number
    assert proxy.connections == 1
