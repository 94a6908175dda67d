"""What users of counters that belong to periods ask: the server's time, and the last change."""

from __future__ import annotations

from time import time

import pytest

from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import (
    AuthenticationFailed,
    CounterUnavailable,
    NatsError,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
)
from tests.support.answers import NO_MESSAGE, Clock, Session, finish, run_until_error, stream_info
from tests.support.counting import from_leader, opened

HOUR = 3600


def timed() -> CounterStream:
    return CounterStream(CounterConfig("C", "c", is_timed=True), Session())


def test_the_first_question_opens_the_stream_and_later_ones_ask_nothing() -> None:
    stream = timed()
    found, asked = finish(stream.server_time(), stream_info(stream.config, HOUR))  # type: ignore[arg-type]
    assert found == pytest.approx(time() + HOUR, abs=600)
    assert len(asked) == 1
    # Another connection must find the stream again, but knows the time.
    stream.stream.opening.reopen()
    assert finish(stream.server_time())[1] == []


def test_a_server_that_is_away_is_an_error_of_counters(clock: Clock) -> None:
    error, _ = run_until_error(clock, timed().server_time(), NotSent())
    assert isinstance(error, CounterUnavailable)
    assert not error.may_have_happened


def test_a_stream_that_is_not_timed_does_not_know_the_time() -> None:
    with pytest.raises(ValueError, match="counter stream C is not timed"):
        finish(opened().server_time())


@pytest.mark.parametrize(("answer", "sequence"), [(from_leader(17, 3), 17), (NO_MESSAGE, 0)])
def test_the_last_change_of_a_counter_is_that_of_the_leader(answer: Reply, sequence: int) -> None:
    found, (asked,) = finish(opened().last_change("k"), answer)
    assert found == sequence
    assert asked.subject == b"$JS.API.STREAM.MSG.GET.C"


def test_the_last_change_is_asked_for_until_it_is_answered(clock: Clock) -> None:
    failures = [NotSent(), OutcomeUnknown(), NoLeader()]
    found, asked = finish(opened().last_change("k"), *failures, from_leader(17, 3))
    assert found == 17
    assert len(asked) == 4


def test_after_deadline_the_last_change_is_not_asked_for_any_more(clock: Clock) -> None:
    stream = opened()
    error, asked = run_until_error(clock, stream.last_change("k"), NotSent())
    assert isinstance(error, CounterUnavailable)
    assert not error.may_have_happened
    assert clock.now - 1000 <= stream.config.deadline + 1
    assert len(asked) > 10


@pytest.mark.parametrize("failure", [AuthenticationFailed(), PermissionDenied()])
def test_a_lasting_failure_is_not_waited_for(clock: Clock, failure: NatsError) -> None:
    _, asked = run_until_error(clock, opened().last_change("k"), failure)
    assert len(asked) == 1
