"""What was refused a moment ago is refused again without a question to the server."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.transport.session import Session
from django_nats.client.transport.waiter import Waiter
from django_nats.counters import Counters
from django_nats.limits import Limit
from tests.limits.conftest import Time

KEY = "a"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, alias: Counters) -> list[int]:
    """Return a list that gets the number of requests of each write, but for what is given back."""
    writes: list[int] = []
    submit = Session.submit

    def counting(session: Session, waiter: Waiter) -> None:
        first: Any = waiter.requests[0]
        if b"Nats-Incr: -" not in first.header:
            writes.append(len(waiter.requests))
        submit(session, waiter)

    monkeypatch.setattr(Session, "submit", counting)
    return writes


@pytest.fixture
def limit(alias: Counters, time: Time) -> Limit:
    """Return a limit of which a key has used 8 of 10, in a window that has just begun."""
    limit = Limit("api", "10/m", algorithm="fixed")
    time.begin_window(KEY, 60)
    limit.hit(KEY, 8)
    return limit


def test_a_flood_asks_the_server_once_a_second(limit: Limit, asked: list[int], time: Time) -> None:
    limit.hit(KEY, 2)
    assert len(asked) == 1
    for _ in range(50):
        assert not limit.hit(KEY)
    assert len(asked) == 2
    time.pass_by(1.01)
    for _ in range(50):
        assert not limit.hit(KEY)
    assert len(asked) == 3


def test_a_refusal_in_the_process_says_how_long_to_wait_from_now_on(
    limit: Limit, asked: list[int], time: Time
) -> None:
    first = limit.hit(KEY, 5)
    time.pass_by(0.5)
    again = limit.hit(KEY, 5)
    assert len(asked) == 1
    assert again.retry_after == pytest.approx(first.retry_after - 0.5)
    assert again.reset_after == pytest.approx(first.reset_after - 0.5)
    assert (again.limit, again.remaining) == (10, 2)


def test_a_cost_for_which_there_is_room_is_asked_about(limit: Limit, asked: list[int]) -> None:
    assert not limit.hit(KEY, 5)
    assert not limit.hit(KEY, 3)
    assert not limit.hit(KEY, 9)
    assert len(asked) == 1
    assert limit.hit(KEY, 2)
    assert len(asked) == 2


def test_a_reset_in_the_same_process_is_noticed_at_once(limit: Limit) -> None:
    assert not limit.hit(KEY, 5)
    limit.reset(KEY)
    assert limit.hit(KEY, 5)


def test_a_reset_by_another_process_is_noticed_after_a_second(limit: Limit, time: Time) -> None:
    assert not limit.hit(KEY, 5)
    Limit("api", "10/m", algorithm="fixed").reset(KEY)
    assert not limit.hit(KEY, 5)
    time.pass_by(1.01)
    assert limit.hit(KEY, 5)


def test_a_refusal_does_not_outlast_its_window(limit: Limit, asked: list[int], time: Time) -> None:
    time.pass_by(59.5)
    assert not limit.hit(KEY, 5)
    time.pass_by(0.45)
    assert limit.hit(KEY, 5)
    assert len(asked) == 2


def test_a_refusal_of_a_cost_that_is_too_large_says_nothing_of_the_next_window(
    limit: Limit, asked: list[int], time: Time
) -> None:
    time.pass_by(59.5)
    assert not limit.hit(KEY, 11)
    time.pass_by(0.6)
    assert limit.hit(KEY, 5)
    assert len(asked) == 2


def test_a_sliding_refusal_lasts_until_there_is_room(
    asked: list[int], alias: Counters, time: Time
) -> None:
    limit = Limit("slide", "100/m")
    time.begin_window(KEY, 60)
    limit.hit(KEY, 100)
    time.pass_by(60)
    wait = limit.hit(KEY).retry_after
    assert 0 < wait < 1
    before = len(asked)
    time.pass_by(0.99 * wait)
    assert not limit.hit(KEY)
    assert len(asked) == before
    time.pass_by(0.02 * wait)
    assert limit.hit(KEY)


def test_the_window_before_is_asked_about_once_a_second(
    asked: list[int], alias: Counters, time: Time
) -> None:
    limit = Limit("slide", "100/m")
    time.begin_window(KEY, 60)
    limit.hit("warm-up")
    asked.clear()
    for _ in range(3):
        limit.hit(KEY)
    time.pass_by(1.01)
    for _ in range(3):
        limit.hit(KEY)
    assert asked == [2, 1, 1, 2, 1, 1]


def test_all_rates_are_asked_in_one_write(asked: list[int], alias: Counters, time: Time) -> None:
    limit = Limit("api", "100/m", "2000/h", "9000/d")
    limit.hit("warm-up")
    asked.clear()
    limit.hit(KEY)
    assert asked == [6]


def test_a_hit_with_a_clock_of_its_own_is_not_refused_from_memory(
    limit: Limit, asked: list[int], time: Time
) -> None:
    assert not limit.hit(KEY, 5)
    assert not limit._run(limit._hit(KEY, 5, None, time.now))
    assert limit._run(limit._hit(KEY, 5, None, time.now + 60))
