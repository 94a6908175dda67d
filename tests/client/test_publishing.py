"""Increments that nobody waits for, as steps on bytes: what goes out, and what is left."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from django_nats.client import wire
from django_nats.client.counters import CounterStream
from django_nats.client.publishing import Increment
from django_nats.client.steps import Pause, Request
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
from tests.support.answers import Session, document, finish, identity_of
from tests.support.counting import NOBODY, ack, duplicate, info, opened, refusal


def pair(stream: CounterStream) -> list[Increment]:
    return [stream.increment("a", 1), stream.increment("b", -2)]


def publish(stream: CounterStream, increments: list[Increment], *answers: object) -> list[Any]:
    return finish(stream.publish(increments), *answers)[1]


def is_held_back(stream: CounterStream, counter: str) -> bool:
    """Whether one that is waited for has to let another go first."""
    steps = stream.incr(counter, 1)
    try:
        return isinstance(next(steps), Pause)
    finally:
        steps.close()


def test_all_go_out_in_one_write() -> None:
    stream = opened()
    increments = pair(stream)
    stream._outage = (1, 2)
    ((first, second),) = publish(stream, increments, [ack(1, 1), ack(2, -2)])
    assert [each.failure for each in increments] == [None, None]
    assert [each.doubted for each in increments] == [None, None]
    assert (first.subject, second.subject) == (b"c.a", b"c.b")
    assert [wire.field(each.header, "Nats-Incr") for each in (first, second)] == ["+1", "-2"]
    assert identity_of(first) != identity_of(second)
    assert repr(increments[1]) == "<Increment b -2>"
    assert stream._outage is None


def test_nothing_to_send_asks_nobody() -> None:
    assert publish(opened(), []) == []


def test_own_writes_are_known() -> None:
    stream = opened(replicas=3)
    publish(stream, pair(stream), [ack(7, 1), duplicate(8)])
    assert stream.recent.is_stale("c.a", 6)
    assert stream.recent.is_stale("c.b", 7)


# In doubt ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [OutcomeUnknown(), refusal(10158, 409), refusal(10008, 503), refusal(0, 503)]
)
def test_what_may_be_applied_goes_out_again_with_the_same_id(failure: object) -> None:
    stream = opened()
    increments = pair(stream)
    ((first, _),) = publish(stream, increments, [failure, ack(1, -2)])
    doubted = increments[0]
    assert doubted.doubted is not None
    assert isinstance(doubted.failure, NatsError)
    assert increments[1].failure is None
    assert is_held_back(stream, "a")
    assert not is_held_back(stream, "b")

    ((again,),) = publish(stream, [doubted], [duplicate(1)])
    assert identity_of(again) == identity_of(first)
    assert doubted.failure is None
    assert doubted.doubted is None
    assert stream.recognised == 1
    assert not is_held_back(stream, "a")


@pytest.mark.parametrize(
    "failure",
    [NotSent("no connection"), BridgeMisuse("no loop here"), AuthenticationFailed("no")],
    ids=repr,
)
def test_what_was_never_sent_is_no_doubt(failure: NatsError) -> None:
    stream = opened()
    increments = pair(stream)
    publish(stream, increments, failure)
    assert [each.failure for each in increments] == [failure, failure]
    assert [each.doubted for each in increments] == [None, None]
    assert not is_held_back(stream, "a")


@pytest.mark.parametrize(
    "later", [NotSent(), refusal(10023, 503), BridgeMisuse(), OutcomeUnknown()], ids=repr
)
def test_a_doubt_stays_one_until_it_is_known(later: object) -> None:
    stream = opened()
    increment = stream.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    since = increment.doubted
    publish(stream, [increment], [later])
    assert increment.doubted == since is not None
    assert is_held_back(stream, "a")


def test_an_interrupted_write_may_be_on_its_way() -> None:
    stream = opened()
    increments = pair(stream)
    steps = stream.publish(increments)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert all(each.doubted for each in increments)
    assert all(each.failure for each in increments)
    assert is_held_back(stream, "a")


def test_an_earlier_change_in_doubt_goes_first() -> None:
    """Not only among those that are waited for."""
    stream = opened()
    waited_for = stream.incr("a", 1)
    next(waited_for)
    waited_for.throw(OutcomeUnknown())
    increments = pair(stream)
    ((only,),) = publish(stream, increments, [ack(1, -2)])
    assert only.subject == b"c.b"
    assert isinstance(increments[0].failure, Unavailable)
    assert "The counter a of the stream C was not changed: an earlier" in str(increments[0].failure)
    waited_for.close()
    publish(stream, increments[:1], [ack(2, 1)])
    assert increments[0].failure is None


async def test_who_holds_up_the_loop_of_a_doubt_does_not_wait_for_it() -> None:
    stream = opened()
    waited_for = stream.incr("a", 1)
    next(waited_for)
    waited_for.throw(OutcomeUnknown())
    increment = stream.increment("a", 1)
    publish(stream, [increment], [ack(1, 1)])
    assert increment.failure is None
    waited_for.close()


def test_two_in_doubt_do_not_wait_for_each_other() -> None:
    stream = opened()
    increment = stream.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    stream._note_doubt("a", stream.increment("a", 1).request)
    publish(stream, [increment], [ack(1, 1)])
    assert increment.failure is None


def test_nobody_is_held_back_for_what_is_forgotten() -> None:
    stream = opened()
    increment = stream.increment("a", 1)
    publish(stream, [increment], [OutcomeUnknown()])
    stream.forget(increment)
    assert not is_held_back(stream, "a")


@pytest.mark.parametrize(("window", "patience"), [(30, 20), (12, 8)])
def test_patience_is_less_than_the_server_remembers(window: int, patience: float) -> None:
    """As it is, not as settings would make it."""
    stream = opened(deadline=10)
    config = {**stream.config.stream_config(), "duplicate_window": window * 10**9}
    finish(stream.open(), document({"config": config, "state": {}}))
    assert stream.patience == pytest.approx(patience)


# Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (PermissionDenied("No."), PermissionDenied, "counter a of the stream C was not changed: N"),
        (refusal(10074, 500), ServerError, "counter a of the stream C was not changed: T"),
        (refusal(10172), Unreadable, "stored for a is no counter"),
        (ValueTooLarge("max_payload"), ValueTooLarge, "max_payload"),
    ],
    ids=["permission", "code 500", "no counter", "too large"],
)
def test_a_final_no_is_that_counters_alone(
    answer: object, kind: type[NatsError], words: str
) -> None:
    stream = opened()
    increments = pair(stream)
    publish(stream, increments, [answer, ack(1, -2)])
    assert isinstance(increments[0].failure, kind)
    assert words in str(increments[0].failure)
    assert increments[0].doubted is None
    assert increments[1].failure is None


def test_the_stream_is_looked_for_when_nobody_listens() -> None:
    stream = opened()
    increment = stream.increment("a", 1)
    publish(stream, [increment], [NOBODY])
    assert increment.doubted is None
    asked = publish(stream, [increment], info(stream.config), [ack(1, 1)])
    assert asked[0].subject == b"$JS.API.STREAM.INFO.C"
    assert increment.failure is None


def test_looking_for_the_stream_puts_nothing_in_doubt() -> None:
    config = opened().config
    stream = CounterStream(config, Session())
    increments = pair(stream)
    (asked,) = publish(stream, increments, OutcomeUnknown("no answer"))
    assert isinstance(asked, Request)
    assert [str(each.failure) for each in increments] == ["no answer"] * 2
    assert [each.doubted for each in increments] == [None, None]


def test_a_stream_that_is_something_else_is_told_of() -> None:
    stream = opened()
    other = CounterStream(stream.config, Session())
    increments = pair(other)
    wrong = {**stream.config.stream_config(), "allow_msg_counter": False}
    level = document({"api": {"level": 2}})
    publish(other, increments, document({"config": wrong, "state": {}}), level)
    assert all(isinstance(each.failure, CounterMismatch) for each in increments)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="as long as you like")
def test_more_digits_than_python_writes() -> None:
    with pytest.raises(ValueTooLarge, match=r"counter a of the stream C.*set_int_max_str_digits"):
        opened().increment("a", 10**5000)
