"""The objects of which each process has one."""

from __future__ import annotations

from django_nats.client import process
from django_nats.client.counters.config import CounterConfig
from django_nats.client.transport.config import ConnectionConfig


def test_an_object_is_made_once_and_only_for_a_new_key() -> None:
    made: list[str] = []

    def make(key: str) -> list[str]:
        made.append(key)
        return [key]

    registry = process._OnePerKey(make)
    assert registry["a"] is registry["a"]
    assert registry["b"] == ["b"]
    assert made == ["a", "b"]


def test_two_threads_that_make_an_object_at_once_get_the_same_one() -> None:
    by_the_other: list[object] = []

    def make(key: str) -> object:
        if not by_the_other:
            by_the_other.append(None)
            by_the_other[0] = registry[key]  # as another thread does at this moment
        return object()

    registry = process._OnePerKey(make)
    mine = registry["key"]
    assert mine is by_the_other[0] is registry["key"]


def test_a_session_belongs_to_its_configuration() -> None:
    one, other = (ConnectionConfig(("nats://127.0.0.1:1",), name=name) for name in ("one", "other"))
    assert process.session(one) is process.session(ConnectionConfig(one.servers, name="one"))
    assert process.session(one) is not process.session(other)
    assert not process.session(one).connected


def test_the_counter_streams_of_a_connection_are_known() -> None:
    one, other = (
        ConnectionConfig(("nats://127.0.0.1:1",), name=f"counting {number}") for number in (1, 2)
    )
    made = [process.counter_stream(one, CounterConfig(stream=name)) for name in ("A", "B")]
    process.counter_stream(other, CounterConfig(stream="A"))
    assert process.counter_streams(one) == made
