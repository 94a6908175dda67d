"""New increments of a counter wait for earlier ones whose outcome is in doubt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol.steps import Pause, Request
from django_nats.exceptions import (
    CounterUnavailable,
    NotSent,
    OutcomeUnknown,
)
from tests.support.answers import (
    Clock,
    Session,
    run_until_error,
)
from tests.support.counting import (
    ack,
    opened,
)

pytestmark = pytest.mark.usefixtures("clock")  # a stalled machine reaches no deadline


def in_doubt(stream: CounterStream) -> Any:
    """Return an increment of k that was sent and not answered."""
    steps = stream.incr("k", 1)
    next(steps)
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    return steps


def test_an_increment_waits_for_an_earlier_one_in_doubt() -> None:
    stream = opened()
    first = in_doubt(stream)
    second, other = stream.incr("k", 1), stream.incr("another", 1)
    assert isinstance(next(second), Pause)
    assert isinstance(second.send(None), Pause)
    assert isinstance(next(other), Request)
    assert isinstance(first.send(None), Request)
    with pytest.raises(StopIteration):
        first.send(ack(8, 1))
    assert isinstance(second.send(None), Request)


def test_an_abandoned_increment_in_doubt_no_longer_delays_others() -> None:
    stream = opened()
    first, second = in_doubt(stream), in_doubt_too(stream)
    first.close()
    third = stream.incr("k", 1)
    assert isinstance(next(third), Pause)
    second.close()
    assert isinstance(third.send(None), Request)


def in_doubt_too(stream: CounterStream) -> Any:
    """Return an increment that was already sent when the first one became doubtful."""
    steps = stream.incr("k", 1)
    doubts, stream.increments.doubts._doubts = (
        stream.increments.doubts._doubts,
        {},
    )  # so that it does not wait
    next(steps)
    stream.increments.doubts._doubts = doubts
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    return steps


def test_an_increment_in_doubt_delays_others_for_a_limited_time(clock: Clock) -> None:
    stream = opened()
    first = in_doubt(stream)
    second = stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    clock.now += 60
    assert isinstance(second.send(None), Request)
    assert isinstance(next(stream.incr("k", 1)), Request)
    assert stream.increments.doubts._doubts == {}
    first.close()


async def test_a_call_does_not_wait_for_a_doubt_of_the_event_loop_it_blocks() -> None:
    stream = opened()
    first, second = in_doubt(stream), stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    await asyncio.sleep(0)
    assert isinstance(second.send(None), Pause)  # as long as the loop runs
    await asyncio.sleep(0)
    assert isinstance(second.send(None), Pause)
    assert isinstance(second.send(None), Request)
    first.close()


async def test_a_call_on_an_event_loop_waits_for_a_doubt_of_another_thread() -> None:
    stream = opened()
    first = await asyncio.to_thread(in_doubt, stream)
    second = stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    assert isinstance(second.send(None), Pause)
    first.close()
    assert isinstance(second.send(None), Request)


def test_an_increment_that_was_not_sent_is_not_in_doubt() -> None:
    stream = opened()
    first = stream.incr("k", 1)
    next(first)
    assert isinstance(first.throw(NotSent()), Pause)
    assert isinstance(next(stream.incr("k", 1)), Request)


def test_waiting_for_a_doubt_ends_at_the_deadline(clock: Clock) -> None:
    stream = opened()
    in_doubt_now = in_doubt(stream)
    began = clock.now
    error, asked = run_until_error(clock, stream.incr("k", 1))
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is False
    assert asked == []
    assert clock.now - began > 10
    # The next ones fail soon, after a pause in which the one in doubt can continue.
    began = clock.now
    stream.increments.outage._began_and_last = (began - 10, began)
    run_until_error(clock, stream.incr("k", 1))
    assert 0 < clock.now - began < 0.2
    in_doubt_now.close()


def test_a_forked_child_does_not_inherit_doubts() -> None:
    stream = opened()
    steps = in_doubt(stream)
    stream.after_fork()
    assert isinstance(next(stream.incr("k", 1)), Request)
    assert stream.increments.outage._began_and_last is None
    steps.close()


def test_an_unanswered_lookup_of_a_known_stream_is_not_a_doubt() -> None:
    stream = opened()
    stream.stream.server.epoch = 2
    steps = stream.incr("k", 1)
    assert next(steps).subject == b"$JS.API.STREAM.INFO.C"
    assert steps.throw(OutcomeUnknown()).subject == b"c.k"  # known from an earlier connection
    assert isinstance(steps.throw(NotSent()), Pause)
    assert isinstance(next(stream.incr("k", 1)), Request)


def test_an_unanswered_lookup_of_a_new_stream_is_not_a_doubt(clock: Clock) -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    error, asked = run_until_error(clock, stream.incr("k", 1), OutcomeUnknown())
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is False
    assert {request.subject for request in asked} == {b"$JS.API.STREAM.INFO.C"}
