"""The estimate of the server's clock."""

from __future__ import annotations

import pytest

from django_nats.client.kv.config import BucketConfig
from django_nats.client.streams.clock import Clock as ServerClock
from tests.support.answers import Clock, document, stamp, stream_document

CONFIG = BucketConfig("b")
SERVER_TIME = 2_000_000_000.0  # seconds since 1970


def ask(server_clock: ServerClock, clock: Clock, *, takes: float) -> bool:
    """Note an answer of the server whose timestamp is from the middle of ``takes`` seconds."""
    sent = clock.now
    timestamp = stamp(SERVER_TIME + clock.now + takes / 2)
    clock.now += takes
    return server_clock.note_answer(document(stream_document(CONFIG, ts=timestamp)), sent)


def test_the_time_is_requested_once_a_minute(clock: Clock) -> None:
    server_clock = ServerClock()
    assert clock.now > server_clock.due
    assert ask(server_clock, clock, takes=0.01)
    assert server_clock.now() == pytest.approx(SERVER_TIME + clock.now, abs=1e-3)
    clock.now += 59
    assert clock.now < server_clock.due
    clock.now += 2
    assert clock.now > server_clock.due


def test_the_time_is_requested_again_soon_after_a_delayed_answer(clock: Clock) -> None:
    server_clock = ServerClock()
    assert not ask(server_clock, clock, takes=0.2)
    assert not ask(server_clock, clock, takes=3.0)
    assert clock.now < server_clock.due
    clock.now += 1.1
    assert clock.now > server_clock.due


def test_a_server_that_became_slower_is_asked_less_and_less_often(clock: Clock) -> None:
    server_clock = ServerClock()
    ask(server_clock, clock, takes=0.001)
    intervals = []
    for _ in range(9):
        ask(server_clock, clock, takes=0.3)
        intervals.append(server_clock.due - clock.now)
        clock.now = server_clock.due + 0.1
    assert intervals == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_an_answer_as_quick_as_an_earlier_one_is_good_enough(clock: Clock) -> None:
    server_clock = ServerClock()
    assert not ask(server_clock, clock, takes=0.4)  # with the time to connect, for all it knows
    assert ask(server_clock, clock, takes=0.4)
    assert ask(server_clock, clock, takes=0.8)
    assert not ask(server_clock, clock, takes=0.9)


def test_a_slow_network_is_not_asked_more_often(clock: Clock) -> None:
    server_clock = ServerClock()
    for _ in range(3):
        ask(server_clock, clock, takes=0.4)
        clock.now += 59
        assert clock.now < server_clock.due
        clock.now += 2
