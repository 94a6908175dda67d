"""Increments as steps on bytes: repetition with the same id, duplicates and errors."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest

from django_nats.client.counters.config import CounterConfig, SourceConfig
from django_nats.client.counters.digits import MAX_DIGITS
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Pause, Request
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
    ValueTooLarge,
)
from tests.support.answers import (
    NO_MESSAGE,
    Clock,
    Session,
    document,
    finish,
    identity_of,
    run_until_error,
    unsuitable_document,
)
from tests.support.counting import (
    NO_RESPONDERS,
    ack,
    duplicate,
    from_leader,
    info,
    opened,
    refusal,
)

pytestmark = pytest.mark.usefixtures("clock")  # a stalled machine reaches no deadline


def next_request(steps: Any, answer: object) -> Any:
    """Return the next effect that is not a pause."""
    effect = steps.throw(answer) if isinstance(answer, NatsError) else steps.send(answer)
    while isinstance(effect, Pause):
        effect = steps.send(None)
    return effect


class Weight(int, enum.Enum):
    """An integer whose text is not a number."""

    HEAVY = 3


# One increment -------------------------------------------------------------------------------


def test_ids_differ_between_streams_and_after_a_fork() -> None:
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


def test_each_increment_has_its_own_id() -> None:
    stream = opened()
    requests = [finish(stream.incr("k", 1), ack(each, each))[1][0] for each in range(1, 101)]
    assert len({identity_of(each) for each in requests}) == 100


@pytest.mark.parametrize(("text", "domain"), [(b"C", None), (b'C","domain":"hub', b"hub")])
@pytest.mark.parametrize("space", [b"", b" "])
def test_acknowledgements_of_every_form_are_read(
    text: bytes, domain: bytes | None, space: bytes
) -> None:
    payload = b'{"stream":"%b",%b"seq":7,%b"val":"-12"}' % (text, space, space)
    stream = opened()
    stream.stream.opening.domain = domain
    assert finish(stream.incr("k", 1), wire.Reply(b"", payload))[0] == -12


@pytest.mark.parametrize("delta", [1.0, True, "1", None, b"1"], ids=repr)
def test_a_delta_that_is_not_an_integer_raises_type_error(delta: Any) -> None:
    with pytest.raises(TypeError, match=f"not {delta!r}"):
        next(opened().incr("k", delta))


def test_more_than_ten_thousand_digits_are_neither_added_nor_read() -> None:
    request = next(opened().incr("k", -(10**9999)))
    assert b"Nats-Incr: -1" + b"0" * 9999 + b"\r\n" in request.header
    with pytest.raises(
        ValueTooLarge, match=r"counter k of the stream C has more than 10,000 digits"
    ):
        next(opened().incr("k", 10**10000))
    reply = wire.Reply(b"", b'{"stream":"C","seq":8,"val":"%b"}' % (b"9" * (MAX_DIGITS + 1)))
    words = r"increment was counted, but: .*counter k of the stream C.*at most 10000 digits"
    with pytest.raises(Unreadable, match=words):
        finish(opened().incr("k", 1), reply)


# Repetition with the same id -----------------------------------------------------------------


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
def test_increments_are_repeated_after_temporary_failures(failures: list[object]) -> None:
    stream = opened()
    total, asked = finish(stream.incr("k", 1), *failures, ack(8, 1))
    assert total == 1
    assert len(asked) == len(failures) + 1
    assert len({request.header for request in asked}) == 1
    assert stream.increments.retried == len(failures)


def test_pauses_between_tries_grow() -> None:
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


def test_the_stream_is_looked_up_without_responders() -> None:
    """The stream may have been deleted, or its servers are electing a leader."""
    stream = opened()
    total, asked = finish(stream.incr("k", 1), NO_RESPONDERS, info(stream.config), ack(1, 1))
    assert total == 1
    assert [request.subject for request in asked] == [b"c.k", b"$JS.API.STREAM.INFO.C", b"c.k"]


# Duplicates ----------------------------------------------------------------------------------


def test_the_total_of_a_duplicate_is_the_one_it_stored() -> None:
    stream = opened()
    total, (_, _, pair) = finish(
        stream.incr("k", 1), OutcomeUnknown(), duplicate(7), [from_leader(7, 3), from_leader(9, 5)]
    )
    assert total == 3
    assert stream.increments.recognised == 1
    assert [request.subject for request in pair] == [b"$JS.API.STREAM.MSG.GET.C"] * 2
    assert [json.loads(request.payload) for request in pair] == [
        {"seq": 7},
        {"last_by_subj": "c.k"},
    ]


@pytest.mark.parametrize(
    "own", [NO_MESSAGE, from_leader(7, 99, "another")], ids=["missing", "another's"]
)
def test_the_total_of_an_overwritten_duplicate_is_the_current_one(own: object) -> None:
    steps = opened().incr("k", 1)
    assert finish(steps, OutcomeUnknown(), duplicate(7), [own, from_leader(9, 5)])[0] == 5


def test_the_total_of_a_duplicate_that_was_reset_is_zero() -> None:
    steps = opened().incr("k", 1)
    assert finish(steps, OutcomeUnknown(), duplicate(7), [NO_MESSAGE, NO_MESSAGE])[0] == 0


@pytest.mark.parametrize("pair", [OutcomeUnknown(), [NotSent(), NotSent()]], ids=str)
def test_the_total_of_a_duplicate_is_requested_again_if_it_cannot_be_read(pair: object) -> None:
    total, asked = finish(
        opened().incr("k", 1),
        OutcomeUnknown(),
        duplicate(7),
        pair,
        duplicate(7),
        [from_leader(7, 3), from_leader(7, 3)],
    )
    assert total == 3
    increments = [each for each in asked if isinstance(each, Request)]
    assert len({request.header for request in increments}) == 1


# Errors --------------------------------------------------------------------------------------


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
        # A final refusal, but of the second try.
        ([OutcomeUnknown("no answer"), refusal(10023, 503)], True),
        ([OutcomeUnknown("no answer"), AuthenticationFailed("no")], True),
    ],
    ids=str,
)
def test_the_error_says_whether_the_increment_may_have_happened(
    clock: Clock, answers: list[object], may_have_happened: bool
) -> None:
    started = clock.now
    error, asked = run_until_error(clock, opened().incr("k", 1), *answers)
    assert clock.now - started < 10 + 1
    assert isinstance(error, CounterUnavailable)
    assert error.may_have_happened is may_have_happened
    words = "may have been changed, or not" if may_have_happened else "was not changed"
    assert f"The counter k of the stream C {words}: " in str(error)
    assert isinstance(error.__cause__, (Unavailable, ServerError))
    assert len({request.header for request in asked}) == 1


def test_an_increment_is_not_repeated_after_a_long_delay(clock: Clock) -> None:
    """The server may have forgotten the id by then."""
    steps = opened(deadline=10).incr("k", 1)
    next(steps)
    assert isinstance(steps.throw(OutcomeUnknown()), Pause)
    clock.now += 60
    with pytest.raises(CounterUnavailable) as caught:
        steps.send(None)
    assert caught.value.may_have_happened is True


def test_what_is_given_back_is_sent_to_a_lone_server_once() -> None:
    steps = opened().give_back("k", 3)
    request = next(steps)
    assert b"Nats-Incr: -3\r\n" in request.header
    assert isinstance(steps.throw(NotSent()), Pause)
    assert steps.send(None) is request  # it certainly was not applied
    with pytest.raises(CounterUnavailable) as caught:
        steps.throw(OutcomeUnknown())
    assert caught.value.may_have_happened


def test_what_is_given_back_is_sent_to_replicas_until_it_is_acknowledged() -> None:
    failures = [OutcomeUnknown(), NotSent(), OutcomeUnknown()]
    total, asked = finish(opened(replicas=3).give_back("k", 3), *failures, ack(8, 1))
    assert total == 1
    assert len({request.header for request in asked}) == 1


def test_an_increment_without_responders_has_not_happened(clock: Clock) -> None:
    stream = opened()
    steps = stream.incr("k", 1)
    effect, error = next(steps), None
    while error is None:
        answer = info(stream.config) if b"INFO" in effect.subject else NO_RESPONDERS
        clock.now += 1
        try:
            effect = next_request(steps, answer)
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
def test_a_final_refusal_is_not_repeated(answer: object, kind: type[ServerError]) -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(kind, match="The counter k of the stream C was not changed: ") as caught:
        next_request(steps, answer)
    assert type(caught.value) is kind


def test_a_refused_login_is_raised_at_once() -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(AuthenticationFailed):
        next_request(steps, AuthenticationFailed())


def test_an_increment_of_a_message_that_is_not_a_counter_raises_unreadable() -> None:
    steps = opened().incr("k", 1)
    next(steps)
    with pytest.raises(Unreadable, match=r"What the stream C last stored for k is not a counter"):
        next_request(steps, refusal(10172))


@pytest.mark.parametrize(
    "failure", [NotSent(), refusal(10167, 429), refusal(0, 503)], ids=["not sent", "429", "503"]
)
def test_successive_increments_wait_for_one_deadline_in_total(
    clock: Clock, failure: object
) -> None:
    stream = opened()
    started = clock.now
    for number in range(20):
        error, asked = run_until_error(clock, stream.incr(f"k.{number}", 1), failure)
        assert isinstance(error, CounterUnavailable)
        assert (len(asked) > 1) is (number == 0)
    assert clock.now - started < 10 + 1


NO_STREAM = refusal(10059, 404)
LEVEL = document({"api": {"level": 2}})


@pytest.mark.parametrize("answer", [refusal(10074, 500), refusal(10036, 503)], ids=["500", "503"])
def test_an_increment_fails_at_once_if_the_stream_cannot_be_created(answer: object) -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    with pytest.raises(ServerError, match="counter stream C cannot be created") as caught:
        finish(stream.incr("k", 1), NO_STREAM, LEVEL, answer)
    assert not isinstance(caught.value, Unavailable)
    assert stream.increments.retried == 0


def test_an_increment_waits_for_a_leader_that_creates_the_stream() -> None:
    stream = CounterStream(CounterConfig("C", "c"), Session())
    found = info(stream.config)
    answers = [NO_STREAM, LEVEL, refusal(10008, 503), found, ack(1, 1)]
    assert finish(stream.incr("k", 1), *answers)[0] == 1


def test_a_changed_stream_does_not_hide_that_the_outcome_is_unknown() -> None:
    stream = opened()
    other = document(unsuitable_document(stream.config))
    steps = stream.incr("k", 1)
    with pytest.raises(CounterUnavailable, match="may have been changed, or not") as caught:
        finish(steps, OutcomeUnknown(), NO_RESPONDERS, other, LEVEL)
    assert caught.value.may_have_happened is True
    assert isinstance(caught.value.__cause__, CounterMismatch)


@pytest.mark.parametrize("later", ["one succeeded", "long ago"])
def test_increments_wait_again_in_the_next_outage(clock: Clock, later: str) -> None:
    stream = opened()
    run_until_error(clock, stream.incr("k", 1), NotSent())
    if later == "one succeeded":
        finish(stream.incr("k", 1), ack(8, 1))
    else:
        clock.now += 60
    assert len(run_until_error(clock, stream.incr("k", 1), NotSent())[1]) > 1


# Reset, and sums -----------------------------------------------------------------------------


def test_a_reset_purges_the_subject_and_is_repeated() -> None:
    done = document({"success": True, "purged": 1})
    _, asked = finish(opened().reset("k"), OutcomeUnknown(), NotSent(), done, NotSent())
    *asked, _ = asked  # the last one asks how far the purge went
    assert {request.subject for request in asked} == {b"$JS.API.STREAM.PURGE.C"}
    assert {request.payload for request in asked} == {b'{"filter":"c.k"}'}


@pytest.mark.parametrize("operation", ["incr", "reset"])
def test_a_sum_of_other_streams_is_read_only(operation: str) -> None:
    stream = opened(sources=(SourceConfig("EU", "eu"),))
    steps = stream.incr("k", 1) if operation == "incr" else stream.reset("k")
    with pytest.raises(ReadOnlyCounter, match="counter k of the stream C is the sum"):
        next(steps)
