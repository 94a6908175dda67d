"""What the streams of limits hold, read for all keys at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client import drivers, process
from django_nats.client.counters.stream import CounterStream
from django_nats.conf.limit_streams import limit_stream
from django_nats.counters import Counters
from django_nats.keys import token
from django_nats.limits import Limit
from django_nats.limits.keys import is_hash, key_token, key_tokens, text_of
from django_nats.limits.stored import Hits, stored_hits
from django_nats.limits.tally import window_at
from tests.counters.conftest import configure, counters

__all__ = ["configure", "counters"]

NOW = 1.7e9
HOUR = 3600


@pytest.fixture
def hours(counters: Counters) -> CounterStream:
    """Return the stream for windows of up to an hour."""
    settings = counters.settings
    return process.counter_stream(settings.connection, limit_stream(settings, HOUR))


def hit(limit: Limit, key: str, cost: int, now: float) -> None:
    assert drivers.run(limit.session, limit._hit(key, cost, None, now))


def read(stream: CounterStream, counters: Counters, **wanted: str) -> list[Hits]:
    return drivers.run(counters.session, stored_hits(stream, **wanted, now=NOW))


def test_the_hits_of_this_window_and_the_one_before_are_read(
    hours: CounterStream, counters: Counters
) -> None:
    limit = Limit("api", "9/h", readable=True)
    for windows, cost in ((0, 3), (1, 2), (2, 5)):
        hit(limit, "ann", cost, NOW - windows * HOUR)

    _, elapsed = window_at("ann", HOUR, NOW)
    assert read(hours, counters) == [Hits("api", "ann", HOUR, 3, 2, elapsed)]


def test_hits_of_the_window_before_are_read_alone(hours: CounterStream, counters: Counters) -> None:
    hit(Limit("api", "9/h", readable=True), "ann", 4, NOW - HOUR)

    (found,) = read(hours, counters)

    assert (found.current, found.previous) == (0, 4)


def test_hits_of_one_limit_or_key_are_read(hours: CounterStream, counters: Counters) -> None:
    for name in ("api", "a.b/c d"):
        for key in ("ann", "bob"):
            hit(Limit(name, "9/h", "5/2m", readable=True), key, 1, NOW)

    def found(**wanted: str) -> set[tuple[str, str, int]]:
        return {each[:3] for each in read(hours, counters, **wanted)}

    odd = token("a.b/c d")
    assert len(found()) == 8
    assert found(limit="a.b/c d", key="bob") == {(odd, "bob", HOUR), (odd, "bob", 120)}
    assert {each[0] for each in found(limit="api")} == {"api"}
    assert found(limit="ap") == found(limit="") == set()


def test_counters_of_another_form_are_left_out(hours: CounterStream, counters: Counters) -> None:
    number, _ = window_at("ann", HOUR, NOW)
    for counter in (
        f"api.ann.{HOUR}.{number}.1",
        f"api.ann.{HOUR}",
        f"api.ann.0.{number}",
        f"api.ann.x.{number}",
        f"api.ann.{HOUR}.-{number}",
        f"api.ann.{'9' * 30}.1",
        f"api.a:b.{HOUR}.{number}",
        f"api.gone.{HOUR}.{number}",
    ):
        drivers.run(counters.session, hours.incr(counter, 1))
    drivers.run(counters.session, hours.incr(f"api.gone.{HOUR}.{number}", -1))

    assert read(hours, counters) == []


def test_a_stream_that_does_not_exist_has_no_hits_and_is_not_created(
    hours: CounterStream, counters: Counters
) -> None:
    assert drivers.run(counters.session, stored_hits(hours)) == []
    assert drivers.run(counters.session, hours.stream.opening.info()) is None


@given(st.text())
def test_a_readable_key_is_read_back_from_its_token(key: str) -> None:
    found = key_token(key, readable=True)

    assert is_hash(found) or text_of(found) == key
    assert found in key_tokens(key)
    assert is_hash(key_token(key, readable=False))


def test_a_hash_is_one_of_its_own_tokens() -> None:
    for key in ("ann", "a" * 200):
        for readable in (True, False):
            shown = text_of(key_token(key, readable=readable))
            assert key_token(key, readable=readable) in key_tokens(shown)
