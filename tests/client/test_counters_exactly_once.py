"""Increments as steps on bytes: what is tried again, how, and what is said in the end."""

from __future__ import annotations

import asyncio
import enum
import json
import sys
from typing import Any

import pytest

from django_nats.client import wire
from django_nats.client.counterconfig import CounterConfig, SourceConfig
from django_nats.client.counters import CounterStream
from django_nats.client.steps import Pause, Request
from django_nats.exceptions import (
    AuthenticationFailed,
    BucketFull,
    CounterMismatch,
    CounterUnavailable,
    NatsError,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    ReadOnlyCounter,
    ServerError,
    Unavailable,
    Unreadable,
)
from tests.support.answers import (
    NO_MESSAGE,
    Clock,
    Session,
    document,
    finish,
    identity_of,
    until_it_gives_up,
)
from tests.support.counting import (
    NOBODY,
    ack,
    duplicate,
    info,
    leaders,
    opened,
    refusal,
)


def step(steps: Any, answer: object) -> Any:
    """The next effect that is no pause."""
    effect = steps.throw(answer) if isinstance(answer, NatsError) else steps.send(answer)
    while isinstance(effect, Pause):
        effect = steps.send(None)
    return effect


class Weight(int, enum.Enum):
    """An integer whose text is none."""

    HEAVY = 3


# One increment -------------------------------------------------------------------------------


def test_no_two_increments_have_the_same_id() -> None:
    here, elsewhere = opened(), opened()
    ids = [identity_of(finish(here.incr("k", 1), ack(8, 1))[1][0]) for _ in range(3)]
    ids.append(identity_of(finish(elsewhere.incr("k", 1), ack(8, 1))[1][0]))
    here.after_fork()
    ids.append(identity_of(finish(here.incr("k", 1), ack(8, 1))[1][0]))
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("delta", "field"),
    [(1, "+1"), (-3, "-3"), (0, "+0"), (10**40, "+1" + "0" * 40), (Weight.HEAVY, "+3")],
)
def test_an_increment_is_one_message(delta: int, field: str) -> None:
    total, (request,) = finish(opened().incr("k", delta), ack(8, delta + 5))
    assert total == delta + 5
    assert request.subject == b"c.k"
    assert request.payload == b""
    assert wire.field(request.header, "Nats-Incr") == field
    assert identity_of(request)


def test_each_increment_has_an_id_of_its_own() -> None:
    stream = opened()
    requests = [finish(stream.incr("k", 1), ack(each, each))[1][0] for each in range(100)]
    assert len({identity_of(each) for each in requests}) == 100


@pytest.mark.parametrize("text", [b"C", b'C","domain":"hub'])
@pytest.mark.parametrize("space", [b"", b" "])
def test_acknowledgements_of_every_form(text: bytes, space: bytes) -> None:
    payload = b'{"stream":"%b",%b"seq":7,%b"val":"-12"}' % (text, space, space)
    assert finish(opened().incr("k", 1), wire.Reply(b"", payload))[0] == -12


@pytest.mark.parametrize("delta", [1.0, True, "1", None, b"1"], ids=repr)
def test_a_delta_is_an_integer(delta: Any) -> None:
    with pytest.raises(TypeError, match=f"not {delta!r}"):
        next(opened().incr("k", delta))


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="as long as you like")
def test_more_digits_than_python_writes_or_reads() -> None:
    with pytest.raises(ValueError, match="set_int_max_str_digits"):
        next(opened().incr("k", 10**5000))
    reply = wire.Reply(b"", b'{"stream":"C","seq":8,"val":"%b"}' % (b"9" * 5000))
    words = r"increment was counted, but: .*counter k of the stream C.*set_int_max_str_digits"
    with pytest.raises(Unreadable, match=words):
        finish(opened().incr("k", 1), reply)


# Again, with the same id ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "failures",
    [
        [OutcomeUnknown()],
        [NotSent()],
        [NotSent(), NotSent(), OutcomeUnknown(), NotSent()],
        [refusal(10158, 409)],
        [refusal(10164)],
        [refusal(10167, 429)],
        [refusal(0, 503)],
        [refusal(10009, 500)],
        [NoLeader(err_code=10008)],
        [refusal(10008, 503), OutcomeUnknown(), refusal(10158, 409)],
    ],
    ids=str,
)
def test_what_passes_is_waited_for(failures: list[object]) -> None:
    stream = opened()
    total, asked = finish(stream.incr("k", 1), *failures, ack(8, 1))
    assert total == 1
    assert len(asked) == len(failures) + 1
    assert len({request.header for request in asked}) == 1
    assert stream.retried == len(failures)


def test_pauses_come_between_and_grow() -> None:
    steps = opened().incr("k", 1)
    next(steps)
    pauses = []
    for _ in range(12):
        pause = steps.throw(NotSent())
        assert isinstance(pause, Pause)
        pauses.append(pause.seconds)
        steps.send(None)
    assert 0.01 <= pauses[0] <= 0.02
    assert 0.1 <= pauses[-1] <= 0.2


def test_nobody_listens_so_the_stream_is_looked_for() -> None:
    """It may have been deleted, or its servers are electing a leader."""
    stream = opened()
    total, asked = finish(stream.incr("k", 1), NOBODY, info(stream.config), ack(1, 1))
    assert total == 1
    assert [request.subject for request in asked] == [b"c.k", b"$JS.API.STREAM.INFO.C", b"c.k"]


# A duplicate ---------------------------------------------------------------------------------


def test_the_total_of_a_duplicate_is_what_it_stored() -> None:
    stream = opened()
    total, (_, _, pair) = finish(
        stream.incr("k", 1), OutcomeUnknown(), duplicate(7), [leaders(7, 3), leaders(9, 5)]
    )
    assert total == 3
    assert stream.recognised == 1
    assert [request.subject for request in pair] == [b"$JS.API.STREAM.MSG.GET.C"] * 2
    assert [json.loads(request.payload) for request in pair] == [
        {"seq": 7},
        {"last_by_subj": "c.k"},
    ]


@pytest.mark.parametrize("own", [NO_MESSAGE, leaders(7, 99, "another")], ids=["gone", "another's"])
def test_if_later_ones_went_over_it_theirs(own: object) -> None:
    steps = opened().incr("k", 1)
    assert finish(steps, OutcomeUnknown(), duplicate(7), [own, leaders(9, 5)])[0] == 5


def test_of_a_duplicate_that_was_reset_nothing_is_left() -> None:
    steps = opened().incr("k", 1)
    assert finish(steps, OutcomeUnknown(), duplicate(7), [NO_MESSAGE, NO_MESSAGE])[0] == 0


@pytest.mark.parametrize("pair", [OutcomeUnknown(), [NotSent(), NotSent()]], ids=str)
def test_if_the_total_cannot_be_read_it_is_asked_for_again(pair: object) -> None:
    total, asked = finish(
        opened().incr("k", 1),
        OutcomeUnknown(),
        duplicate(7),
        pair,
        duplicate(7),
        [leaders(7, 3), leaders(7, 3)],
    )
    assert total == 3
    increments = [each for each in asked if isinstance(each, Request)]
    assert len({request.header for request in increments}) == 1


# In the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "may_have_happened"),
    [
        ([NotSent("no connection")], False),
        ([refusal(10167, 429)], False),
        ([OutcomeUnknown("no answer")], True),
        ([OutcomeUnknown("no answer"), NotSent("no connection")], True),
        ([refusal(10158, 409)], True),
        ([refusal(10008, 503)], True),
        ([refusal(0, 503)], True),
        # A final no, but to the second try.
        ([OutcomeUnknown("no answer"), refusal(10023, 503)], True),
        ([OutcomeUnknown("no answer"), AuthenticationFailed("no")], True),
    ],
    ids=str,
)
def test_time_is_up(clock: Clock, answers: list[object], may_have_happened: bool) -> None:
    started = clock.now
    error, asked = until_it_gives_up(clock, opened().incr("k", 1), *answers)
    assert clock.now - started < 10 + 1
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is may_have_happened
    words = "may have been changed, or not" if may_have_happened else "was not changed"
    assert f"The counter k of the stream C {words}: " in str(error)
    assert isinstance(error.__cause__, (Unavailable, ServerError))
    assert len({request.header for request in asked}) == 1


def test_who_was_held_up_does_not_try_again(clock: Clock) -> None:
    """By then the server may have forgotten the id."""
    steps = opened(deadline=10).incr("k", 1)
    next(steps)
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    clock.now += 60
    with pytest.raises(CounterUnavailable) as caught:
        steps.send(None)
    assert caught.value.may_have_happened is True


def test_nobody_ever_listened(clock: Clock) -> None:
    stream = opened()
    steps = stream.incr("k", 1)
    effect, error = next(steps), None
    while error is None:
        answer = info(stream.config) if b"INFO" in effect.subject else NOBODY
        clock.now += 1
        try:
            effect = step(steps, answer)
        except CounterUnavailable as caught:
            error = caught
    assert error.may_have_happened is False


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(10023, 503), BucketFull),
        (refusal(10171), ServerError),
        (refusal(10074, 500), ServerError),
        (PermissionDenied("No permission to publish to c.k"), PermissionDenied),
    ],
)
def test_a_final_no_is_not_asked_for_twice(answer: object, kind: type[ServerError]) -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(kind, match="The counter k of the stream C was not changed: ") as caught:
        step(steps, answer)
    assert type(caught.value) is kind


def test_a_refused_login_is_not_tried_for_ten_seconds() -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(AuthenticationFailed):
        step(steps, AuthenticationFailed())


def test_what_is_stored_is_no_counter() -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(Unreadable, match=r"What the stream C last stored for k is no counter"):
        step(steps, refusal(10172))


@pytest.mark.parametrize(
    "failure", [NotSent(), refusal(10167, 429), refusal(0, 503)], ids=["not sent", "429", "503"]
)
def test_many_in_a_row_wait_for_one_deadline_in_all(clock: Clock, failure: object) -> None:
    stream = opened()
    started = clock.now
    for number in range(20):
        error, asked = until_it_gives_up(clock, stream.incr(f"k.{number}", 1), failure)
        assert isinstance(error, CounterUnavailable)
        assert (len(asked) > 1) is (number == 0)
    assert clock.now - started < 10 + 1


NO_STREAM = refusal(10059, 404)
LEVEL = document({"api": {"level": 2}})


@pytest.mark.parametrize("answer", [refusal(10074, 500), refusal(10035, 503)], ids=["500", "503"])
def test_a_stream_that_cannot_be_made_is_not_tried_again(answer: object) -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    with pytest.raises(ServerError, match="counter stream C cannot be made") as caught:
        finish(stream.incr("k", 1), NO_STREAM, LEVEL, answer)
    assert not isinstance(caught.value, Unavailable)
    assert stream.retried == 0


def test_a_stream_that_has_no_leader_to_make_it_is_waited_for() -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    found = info(stream.config)
    finish(stream.incr("k", 1), NO_STREAM, LEVEL, refusal(10008, 503), found, ack(1, 1))
    assert stream.retried == 1


def test_a_stream_that_is_another_by_now_does_not_hide_a_doubt() -> None:
    stream = opened()
    wrong = {**stream.config.stream_config(), "allow_msg_counter": False}
    other = document({"config": wrong, "state": {}})
    steps = stream.incr("k", 1)
    with pytest.raises(CounterUnavailable, match="may have been changed, or not") as caught:
        finish(steps, OutcomeUnknown(), NOBODY, other, LEVEL)
    assert caught.value.may_have_happened is True
    assert isinstance(caught.value.__cause__, CounterMismatch)


@pytest.mark.parametrize("later", ["one counted", "it is long ago"])
def test_the_next_outage_is_waited_for_again(clock: Clock, later: str) -> None:
    stream = opened()
    until_it_gives_up(clock, stream.incr("k", 1), NotSent())
    if later == "one counted":
        finish(stream.incr("k", 1), ack(8, 1))
    else:
        clock.now += 60
    assert len(until_it_gives_up(clock, stream.incr("k", 1), NotSent())[1]) > 1


# In doubt ------------------------------------------------------------------------------------


def in_doubt(stream: CounterStream) -> Any:
    """An increment of k that was sent, and not answered."""
    steps = stream.incr("k", 1)
    next(steps)
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    return steps


def test_those_in_doubt_go_first() -> None:
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


def test_a_doubt_goes_with_whoever_had_it() -> None:
    stream = opened()
    first, second = in_doubt(stream), in_doubt_too(stream)
    first.close()
    third = stream.incr("k", 1)
    assert isinstance(next(third), Pause)
    second.close()
    assert isinstance(third.send(None), Request)


def in_doubt_too(stream: CounterStream) -> Any:
    """One that was on its way when the first fell into doubt."""
    steps = stream.incr("k", 1)
    doubts, stream._doubts = stream._doubts, {}  # so that it need not wait
    next(steps)
    stream._doubts = doubts
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    return steps


def test_a_doubt_that_nobody_will_settle_holds_nobody_back_for_ever(clock: Clock) -> None:
    stream = opened()
    first = in_doubt(stream)
    second = stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    clock.now += 60
    assert isinstance(second.send(None), Request)
    assert isinstance(next(stream.incr("k", 1)), Request)
    assert stream._doubts == {}
    first.close()


async def test_a_call_that_holds_up_the_loop_of_a_doubt_does_not_wait_for_it() -> None:
    stream = opened()
    first, second = in_doubt(stream), stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    await asyncio.sleep(0)
    assert isinstance(second.send(None), Pause)  # as long as the loop goes on
    await asyncio.sleep(0)
    assert isinstance(second.send(None), Pause)
    assert isinstance(second.send(None), Request)
    first.close()


async def test_a_doubt_of_another_thread_is_waited_for_on_a_loop_too() -> None:
    stream = opened()
    first = await asyncio.to_thread(in_doubt, stream)
    second = stream.incr("k", 1)
    assert isinstance(next(second), Pause)
    assert isinstance(second.send(None), Pause)
    first.close()
    assert isinstance(second.send(None), Request)


def test_what_was_never_sent_is_no_doubt() -> None:
    stream = opened()
    first = stream.incr("k", 1)
    next(first)
    assert isinstance(first.throw(NotSent()), Pause)
    assert isinstance(next(stream.incr("k", 1)), Request)


def test_waiting_for_a_doubt_ends_too(clock: Clock) -> None:
    stream = opened()
    in_doubt_now = in_doubt(stream)
    began = clock.now
    error, asked = until_it_gives_up(clock, stream.incr("k", 1))
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is False
    assert asked == []
    assert clock.now - began > 10
    # Then at once, but not without letting the one in doubt go on.
    began = clock.now
    stream._outage = (began - 10, began)
    until_it_gives_up(clock, stream.incr("k", 1))
    assert 0 < clock.now - began < 0.2
    in_doubt_now.close()


def test_a_forked_child_has_none_of_its_parents_doubts() -> None:
    stream = opened()
    steps = in_doubt(stream)
    stream.after_fork()
    assert isinstance(next(stream.incr("k", 1)), Request)
    assert stream._outage is None
    steps.close()


def test_looking_for_the_stream_is_no_doubt() -> None:
    stream = opened()
    stream._server.epoch = 2
    steps = stream.incr("k", 1)
    assert next(steps).subject == b"$JS.API.STREAM.INFO.C"
    assert steps.throw(OutcomeUnknown()).subject == b"c.k"  # known from an earlier connection
    assert isinstance(steps.throw(NotSent()), Pause)
    assert isinstance(next(stream.incr("k", 1)), Request)


def test_nor_is_looking_for_it_the_first_time(clock: Clock) -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    error, asked = until_it_gives_up(clock, stream.incr("k", 1), OutcomeUnknown())
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is False
    assert {request.subject for request in asked} == {b"$JS.API.STREAM.INFO.C"}


# Reset, and sums -----------------------------------------------------------------------------


def test_a_reset_is_a_purge_of_the_subject_and_insists() -> None:
    done = document({"success": True, "purged": 1})
    _, asked = finish(opened().reset("k"), OutcomeUnknown(), NotSent(), done)
    assert {request.subject for request in asked} == {b"$JS.API.STREAM.PURGE.C"}
    assert {request.payload for request in asked} == {b'{"filter":"c.k"}'}


@pytest.mark.parametrize("operation", ["incr", "reset"])
def test_a_sum_of_others_is_not_changed(operation: str) -> None:
    stream = opened(sources=(SourceConfig("EU", "eu"),))
    steps = stream.incr("k", 1) if operation == "incr" else stream.reset("k")
    with pytest.raises(ReadOnlyCounter, match="counter k of the stream C is the sum"):
        next(steps)
