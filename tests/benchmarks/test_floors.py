"""The floors store and count values, and match replies to requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from django_nats.devserver import NatsServer
from tests.benchmarks.delay import Delay
from tests.benchmarks.floors import CounterFloor, NatsFloor

VALUES = {f"key-{number}": f"value-{number}" for number in range(100)}


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(token="") as running:
        yield running


def floor(port: int) -> closing[NatsFloor]:
    return closing(NatsFloor(f"127.0.0.1:{port}", {}))


def test_a_floor_stores_values(server: NatsServer) -> None:
    with floor(server.port) as only:
        assert only.get("absent") is None
        only.set("key", "value", 300)
        assert only.get("key") == "value"
        assert only.set_many(VALUES, 300) == []
        assert only.get_many([*VALUES, "absent"]) == VALUES
        assert only.get_many(["absent"]) == {}


def test_floors_on_two_routes_do_not_receive_each_others_replies(server: NatsServer) -> None:
    with (
        Delay(server.port, 0.0005) as delay,
        floor(server.port) as direct,
        floor(delay.port) as delayed,
    ):
        for each in (delayed, direct, delayed, direct):
            each.set("key", "value", 300)
            assert each.get("key") == "value"
            assert each.set_many(VALUES, 300) == []
            assert each.get_many(VALUES) == VALUES


def test_two_counter_floors_share_a_counter(server: NatsServer) -> None:
    location = f"127.0.0.1:{server.port}"
    with closing(CounterFloor(location, {})) as one, closing(CounterFloor(location, {})) as other:
        one.set("key", "5", None)
        assert other.incr("key") == 6
        assert one.get("key") == 6
        one.set("key", 0, None)
        assert other.get("key") == 0
