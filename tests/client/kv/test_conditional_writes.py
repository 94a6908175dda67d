"""Writes that depend on a revision, as steps on bytes: conflicts and unknown outcomes."""

from __future__ import annotations

import json
from time import time

import pytest

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.entry import Entry, Write
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Pause, Steps
from django_nats.exceptions import (
    BucketFull,
    NatsError,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    ServerError,
    WrongRevision,
)
from tests.support.answers import (
    NO_MESSAGE,
    WRITE,
    Clock,
    ack,
    finish,
    from_leader,
    from_leader_with,
    identity_of,
    opened,
    refusal,
    run_until_error,
    stored,
)

pytestmark = pytest.mark.usefixtures("clock")


def conditional(bucket: Bucket) -> Steps[int | None]:
    return bucket.compare_and_set(":1:k", WRITE, 7)


def test_a_conditional_write_returns_its_revision_or_none() -> None:
    revision, (request,) = finish(conditional(opened()), ack(8))
    assert revision == 8
    assert request.subject == b"$KV.b.=.1.k"
    assert wire.field(request.header, "Nats-Expected-Last-Subject-Sequence") == "7"
    assert finish(conditional(opened()), refusal(10071))[0] is None


def test_the_next_write_has_another_id() -> None:
    bucket = opened()
    (first,) = finish(conditional(bucket), ack(8))[1]
    (second,) = finish(conditional(bucket), ack(9))[1]
    assert identity_of(first) != identity_of(second)


@pytest.mark.parametrize(
    "failures",
    [
        [OutcomeUnknown()],
        [refusal(10158)],
        [refusal(10164)],
        [OutcomeUnknown(), NotSent(), NotSent()],
        [OutcomeUnknown(), NoLeader()],
        [OutcomeUnknown(), refusal(10158), refusal(10164)],
    ],
    ids=str,
)
def test_a_write_in_doubt_is_sent_again_with_the_same_id(failures: list[object]) -> None:
    revision, asked = finish(conditional(opened(request_timeout=5)), *failures, ack(8))
    assert revision == 8
    assert len(asked) == len(failures) + 1
    assert len({request.header for request in asked}) == 1


def test_a_pause_precedes_the_repetition() -> None:
    steps = conditional(opened(request_timeout=5))
    next(steps)
    pause = steps.throw(OutcomeUnknown())
    assert isinstance(pause, Pause)
    assert 0 < pause.seconds < 0.1


@pytest.mark.parametrize("doubt", [OutcomeUnknown(), refusal(10158)], ids=str)
@pytest.mark.parametrize("stored_by", ["us", "another", "another, later", "no one"])
def test_the_stored_message_decides_if_a_repeated_write_is_refused(
    doubt: object, stored_by: str
) -> None:
    steps = conditional(opened(request_timeout=5))
    identity = identity_of(next(steps))
    pause = steps.throw(doubt) if isinstance(doubt, NatsError) else steps.send(doubt)
    assert isinstance(pause, Pause)
    steps.send(None)
    question = steps.send(refusal(10071))
    assert question.subject == b"$JS.API.STREAM.MSG.GET.KV_b"
    assert json.loads(question.payload) == {"last_by_subj": "$KV.b.=.1.k"}
    reply = {
        "us": from_leader(8, identity),
        "another": from_leader_with(8, "Nats-Expected-Last-Subject-Sequence: 7"),
        "another, later": from_leader_with(9, "Nats-Expected-Last-Subject-Sequence: 8"),
        "no one": NO_MESSAGE,
    }[stored_by]
    if stored_by in ("us", "another"):
        with pytest.raises(StopIteration) as end:
            steps.send(reply)
        assert end.value.value == (8 if stored_by == "us" else None)
    else:
        # The stored value may be based on this write: repeating it could write twice.
        with pytest.raises(OutcomeUnknown):
            steps.send(reply)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([OutcomeUnknown()], OutcomeUnknown),
        ([OutcomeUnknown(), NotSent()], OutcomeUnknown),
        ([OutcomeUnknown(), NoLeader()], OutcomeUnknown),
        ([OutcomeUnknown(), refusal(10164)], OutcomeUnknown),
        # The leader cannot be asked which write was stored.
        ([OutcomeUnknown(), refusal(10071), NotSent()], OutcomeUnknown),
        ([refusal(10158)], OutcomeUnknown),
        ([refusal(10164)], WrongRevision),
        # Nothing was stored, and nothing will be.
        ([NotSent()], NotSent),
        ([NoLeader()], NoLeader),
        ([refusal(10077)], BucketFull),
        ([OutcomeUnknown(), refusal(10077)], BucketFull),
        ([refusal(10999)], ServerError),
    ],
    ids=str,
)
def test_the_error_after_the_last_try_tells_whether_the_write_may_apply(
    clock: Clock, answers: list[object], kind: type[NatsError]
) -> None:
    error, _ = run_until_error(clock, conditional(opened(request_timeout=0.05)), *answers)
    assert type(error) is kind


def test_add_replaces_a_tombstone_or_an_expired_value() -> None:
    for reply in (
        from_leader_with(9, "KV-Operation: PURGE"),
        from_leader_with(9, "Django-Nats: json;ms=1000", at=time() - 2),
    ):
        revision, asked = finish(opened().add(":1:k", WRITE), refusal(10071), reply, ack(10))
        assert revision == 10
        conditions = [
            wire.field(each.header, "Nats-Expected-Last-Subject-Sequence")
            for each in (asked[0], asked[2])
        ]
        assert conditions == ["0", "9"]
    assert finish(opened().add(":1:k", WRITE), refusal(10071), from_leader(9))[0] is None


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_change_reads_the_value_again_after_a_conflict(replicas: int) -> None:
    """With replicas, read from the leader: a replica may still have the old value."""

    def decide(entry: Entry | None) -> Steps[tuple[Write | None, bytes]]:
        assert entry is not None
        new = entry.payload + b"+"
        return Write(new, "json", None), new
        yield

    second = from_leader(9, payload=b"theirs") if replicas > 1 else stored(9, payload=b"theirs")
    result, asked = finish(
        opened(replicas=replicas).change(":1:k", decide),
        stored(7, payload=b"old"),
        refusal(10071),
        second,
        ack(10),
    )
    assert result == b"theirs+"
    assert wire.field(asked[3].header, "Nats-Expected-Last-Subject-Sequence") == "9"
