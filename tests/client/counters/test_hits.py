"""Hits of limits as steps on bytes: one write, no repetition, and a failure for each window."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.counters import hits
from django_nats.client.counters.hits import Window
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Expired, Request, Within
from django_nats.exceptions import (
    NatsError,
    NotSent,
    OutcomeUnknown,
    ServerError,
    UnexpectedReply,
    Unreadable,
)
from tests.support.answers import MISSING, Session
from tests.support.counting import NO_RESPONDERS, ack, duplicate, info, opened, refusal, stored

pytestmark = pytest.mark.usefixtures("clock")  # a stalled machine reaches no deadline

TIMEOUT = 1.0


def run(steps: Any, *answers: object) -> tuple[Any, list[Any]]:
    """Run steps with these answers. Return their result and what they yielded.

    Requests within a deadline are answered like others.
    """
    asked = []
    remaining = list(answers)
    try:
        effect = next(steps)
        while True:
            asked.append(effect)
            answer = remaining.pop(0)
            effect = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as end:
        assert not remaining
        return end.value, asked


def window(stream: CounterStream, previous: str | None = None) -> Window:
    return Window(stream, "now", previous)


def test_a_hit_is_an_increment_without_an_id() -> None:
    ((counts,), (requests,)) = run(hits.hit([window(opened())], 5, TIMEOUT), [ack(1, 7)])
    assert counts == (7, 0)
    (request,) = requests
    assert request.subject == b"c.now"
    assert wire.field(request.header, "Nats-Incr") == "+5"
    assert wire.field(request.header, "Nats-Msg-Id") is None


def test_the_window_before_is_asked_in_the_same_write() -> None:
    steps = hits.hit([window(opened(), "k")], 1, TIMEOUT)
    (counts,), (requests,) = run(steps, [ack(9, 7), stored(5, 30)])
    assert counts == (7, 30)
    assert [each.subject for each in requests] == [b"c.now", b"$JS.API.DIRECT.GET.C.c.k"]


def test_a_window_before_that_has_no_hits_counts_0() -> None:
    (counts,), _ = run(hits.hit([window(opened(), "k")], 1, TIMEOUT), [ack(9, 7), MISSING])
    assert counts == (7, 0)


def test_all_windows_leave_in_one_write() -> None:
    windows = [window(opened()), window(opened(), "k")]
    counts, (requests,) = run(hits.hit(windows, 1, TIMEOUT), [ack(1, 1), ack(2, 2), stored(5, 3)])
    assert counts == [(1, 0), (2, 3)]
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (OutcomeUnknown("no answer"), OutcomeUnknown),
        (refusal(10023), ServerError),
        (refusal(10172), Unreadable),
        (duplicate(1), UnexpectedReply),
    ],
)
def test_a_window_that_fails_leaves_the_others_their_counts(
    answer: object, error: type[NatsError]
) -> None:
    windows = [window(opened(), "k"), window(opened(), "k")]
    (failed, counts), _ = run(
        hits.hit(windows, 1, TIMEOUT), [answer, stored(5, 3), ack(1, 1), stored(5, 3)]
    )
    assert isinstance(failed, error)
    assert counts == (1, 3)


def test_a_window_without_the_count_of_the_one_before_has_failed() -> None:
    steps = hits.hit([window(opened(), "k")], 1, TIMEOUT)
    (failed,), _ = run(steps, [ack(1, 1), OutcomeUnknown("no answer")])
    assert isinstance(failed, OutcomeUnknown)


def test_a_hit_that_is_not_sent_has_failed_in_every_window() -> None:
    windows = [window(opened()), window(opened())]
    failures, _ = run(hits.hit(windows, 1, TIMEOUT), NotSent("away"))
    assert [type(each) for each in failures] == [NotSent, NotSent]


def test_nothing_is_sent_while_one_stream_is_known_to_have_no_leader() -> None:
    leaderless = opened()
    leaderless.stream.lanes.writes.fault = "no leader"
    failures, asked = run(hits.hit([window(opened()), window(leaderless)], 1, TIMEOUT))
    assert [type(each) for each in failures] == [NotSent, NotSent]
    assert asked == []


def test_a_hit_that_reached_no_stream_is_sent_again_within_the_timeout() -> None:
    stream = opened()
    steps = hits.hit([window(stream)], 1, TIMEOUT)
    found = info(stream.config)
    (counts,), asked = run(steps, [NO_RESPONDERS], found, [ack(1, 1)])
    assert counts == (1, 0)
    assert all(type(each) is Within for each in asked[1:])


def test_a_hit_that_reaches_no_stream_fails_when_its_time_is_over() -> None:
    steps = hits.hit([window(opened())], 1, TIMEOUT)
    (failed,), _ = run(steps, [NO_RESPONDERS], Expired())
    assert isinstance(failed, OutcomeUnknown)


def test_what_is_given_back_is_not_waited_for() -> None:
    stream = opened()
    hits.give_back([window(stream, "k")], 5)
    session = stream.stream.server
    assert isinstance(session, Session)
    (request,) = session.posted
    assert request.subject == b"c.now"
    assert wire.field(request.header, "Nats-Incr") == "-5"


def test_a_peek_reads_and_adds_nothing() -> None:
    stream = opened()

    def answer(effect: Any) -> Any:
        assert isinstance(effect, list)
        assert all(isinstance(each, Request) and not each.header for each in effect)
        return [[stored(1, 3, "now"), stored(2, 4), Reply204]]

    Reply204 = wire.Reply(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n", b"")
    steps = hits.peek([window(stream, "k")])
    effect = next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(answer(effect))
    assert end.value.value == [(3, 4)]
