"""Write-behind increments as steps on bytes: requests, doubts and refusals."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from django_nats.client.counters.publishing import Increment
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Pause, Request
from django_nats.client.streams import opening
from django_nats.exceptions import (
    AuthenticationFailed,
    BridgeMisuse,
    CounterMismatch,
    NatsError,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    Unavailable,
    Unreadable,
    ValueTooLarge,
)
from tests.support.answers import (
    Session,
    document,
    finish,
    identity_of,
    stream_document,
    unsuitable_document,
)
from tests.support.counting import NO_RESPONDERS, ack, duplicate, info, opened, refusal

pytestmark = pytest.mark.usefixtures("clock")  # a stalled machine reaches no deadline


def pair(stream: CounterStream) -> list[Increment]:
    return [stream.publishing.increment("a", 1), stream.publishing.increment("b", -2)]


def publish(stream: CounterStream, increments: list[Increment], *answers: object) -> list[Any]:
    return finish(stream.publishing.publish(increments), *answers)[1]


def has_to_wait(stream: CounterStream, counter: str) -> bool:
    """Return True if a direct increment has to wait for another one in doubt."""
    steps = stream.incr(counter, 1)
    try:
        return isinstance(next(steps), Pause)
    finally:
        steps.close()


def test_all_increments_are_sent_in_one_write() -> None:
    stream = opened()
    increments = pair(stream)
    stream.increments.outage._began_and_last = (1, 2)
    ((first, second),) = publish(stream, increments, [ack(1, 1), ack(2, -2)])
    assert [each.failure for each in increments] == [None, None]
    assert [each.doubted for each in increments] == [None, None]
    assert (first.subject, second.subject) == (b"c.a", b"c.b")
    assert [wire.field(each.header, "Nats-Incr") for each in (first, second)] == ["+1", "-2"]
    assert identity_of(first) != identity_of(second)
    assert repr(increments[1]) == "<Increment b -2>"
    assert stream.increments.outage._began_and_last is None


def test_publishing_nothing_sends_no_request() -> None:
    assert publish(opened(), []) == []


def test_published_increments_are_recorded_as_own_writes() -> None:
    stream = opened(replicas=3)
    publish(stream, pair(stream), [ack(7, 1), duplicate(8)])
    assert stream.stream.recent.is_stale(b"c.a", 6)
    assert stream.stream.recent.is_stale(b"c.b", 7)


# In doubt ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [OutcomeUnknown(), refusal(10158, 409), refusal(10008, 503), refusal(0, 503)]
)
def test_an_increment_in_doubt_is_sent_again_with_the_same_id(failure: object) -> None:
    stream = opened()
    increments = pair(stream)
    ((first, _),) = publish(stream, increments, [failure, ack(1, -2)])
    doubted = increments[0]
    assert doubted.doubted is not None
    assert isinstance(doubted.failure, NatsError)
    assert increments[1].failure is None
    assert has_to_wait(stream, "a")
    assert not has_to_wait(stream, "b")

    ((again,),) = publish(stream, [doubted], [duplicate(1)])
    assert identity_of(again) == identity_of(first)
    assert doubted.failure is None
    assert doubted.doubted is None
    assert stream.increments.recognised == 1
    assert not has_to_wait(stream, "a")


@pytest.mark.parametrize(
    "failure",
    [NotSent("no connection"), BridgeMisuse("no loop here"), AuthenticationFailed("no")],
    ids=repr,
)
def test_an_increment_that_was_not_sent_is_not_in_doubt(failure: NatsError) -> None:
    stream = opened()
    increments = pair(stream)
    publish(stream, increments, failure)
    assert [each.failure for each in increments] == [failure, failure]
    assert [each.doubted for each in increments] == [None, None]
    assert not has_to_wait(stream, "a")


@pytest.mark.parametrize(
    "later", [NotSent(), refusal(10023, 503), BridgeMisuse(), OutcomeUnknown()], ids=repr
)
def test_an_increment_stays_in_doubt_until_its_outcome_is_known(later: object) -> None:
    stream = opened()
    increment = stream.publishing.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    since = increment.doubted
    publish(stream, [increment], [later])
    assert increment.doubted == since is not None
    assert has_to_wait(stream, "a")


def test_increments_of_an_interrupted_write_are_in_doubt() -> None:
    stream = opened()
    increments = pair(stream)
    steps = stream.publishing.publish(increments)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert all(each.doubted for each in increments)
    assert all(each.failure for each in increments)
    assert has_to_wait(stream, "a")


def test_an_increment_is_not_sent_before_an_earlier_one_in_doubt() -> None:
    """A direct increment in doubt delays write-behind increments too."""
    stream = opened()
    waited_for = stream.incr("a", 1)
    next(waited_for)
    waited_for.throw(OutcomeUnknown())
    increments = pair(stream)
    ((only,),) = publish(stream, increments, [ack(1, -2)])
    assert only.subject == b"c.b"
    assert isinstance(increments[0].failure, Unavailable)
    assert "The counter a of the stream C was not changed: the outcome of an earlier" in str(
        increments[0].failure
    )
    waited_for.close()
    publish(stream, increments[:1], [ack(2, 1)])
    assert increments[0].failure is None


async def test_publishing_does_not_wait_for_a_doubt_of_the_event_loop_it_blocks() -> None:
    stream = opened()
    waited_for = stream.incr("a", 1)
    next(waited_for)
    waited_for.throw(OutcomeUnknown())
    increment = stream.publishing.increment("a", 1)
    publish(stream, [increment], [ack(1, 1)])
    assert increment.failure is None
    waited_for.close()


def test_two_in_doubt_do_not_wait_for_each_other() -> None:
    stream = opened()
    increment = stream.publishing.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    stream.increments.doubts.note("a", stream.publishing.increment("a", 1).request)
    publish(stream, [increment], [ack(1, 1)])
    assert increment.failure is None


def test_a_forgotten_increment_delays_no_other() -> None:
    stream = opened()
    increment = stream.publishing.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    stream.publishing.forget(increment)
    assert not has_to_wait(stream, "a")


@pytest.mark.parametrize(("window", "patience"), [(30, 20), (12, 8)])
def test_patience_is_shorter_than_the_servers_duplicate_window(
    window: int, patience: float
) -> None:
    """The window of the existing stream applies, not that of the settings."""
    stream = opened(deadline=10)
    answer = stream_document(stream.config)
    answer["config"]["duplicate_window"] = window * 10**9
    finish(stream.stream.opening.open(), document(answer))
    assert stream.publishing.patience == pytest.approx(patience)


# Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (PermissionDenied("No."), PermissionDenied, "counter a of the stream C was not changed: N"),
        (refusal(10074, 500), ServerError, "counter a of the stream C was not changed: T"),
        (refusal(10172), Unreadable, "stored for a is not a counter"),
        (ValueTooLarge("max_payload"), ValueTooLarge, "max_payload"),
    ],
    ids=["permission", "code 500", "no counter", "too large"],
)
def test_a_final_refusal_affects_only_its_counter(
    answer: object, kind: type[NatsError], words: str
) -> None:
    stream = opened()
    increments = pair(stream)
    publish(stream, increments, [answer, ack(1, -2)])
    assert isinstance(increments[0].failure, kind)
    assert words in str(increments[0].failure)
    assert increments[0].doubted is None
    assert increments[1].failure is None


def test_the_stream_is_looked_up_without_responders() -> None:
    stream = opened()
    increment = stream.publishing.increment("a", 1)
    publish(stream, [increment], [NO_RESPONDERS])
    assert increment.doubted is None
    asked = publish(stream, [increment], info(stream.config), [ack(1, 1)])
    assert asked[0].subject == b"$JS.API.STREAM.INFO.C"
    assert increment.failure is None


def test_an_unanswered_lookup_puts_no_increment_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "monotonic", count(0, 100).__next__)
    config = opened().config
    stream = CounterStream(config, Session())
    increments = pair(stream)
    (asked,) = publish(stream, increments, OutcomeUnknown("no answer"))
    assert isinstance(asked, Request)
    assert [str(each.failure) for each in increments] == ["no answer"] * 2
    assert [each.doubted for each in increments] == [None, None]


def test_an_unsuitable_stream_fails_every_increment() -> None:
    stream = opened()
    other = CounterStream(stream.config, Session())
    increments = pair(other)
    level = document({"api": {"level": 2}})
    publish(other, increments, document(unsuitable_document(stream.config)), level)
    assert all(isinstance(each.failure, CounterMismatch) for each in increments)


def test_an_increment_of_too_many_digits_is_refused() -> None:
    with pytest.raises(
        ValueTooLarge, match="counter a of the stream C has more than 10,000 digits"
    ):
        opened().publishing.increment("a", 10**10000)
