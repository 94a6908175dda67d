"""Streams without a leader: requests that reached no stream are repeated for a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import pytest

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.protocol.steps import Pause, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import NoLeader, NotSent, OutcomeUnknown, ServerError, UnexpectedReply
from tests.support import counting
from tests.support.answers import (
    MISSING,
    NO_MESSAGE,
    WRITE,
    Clock,
    Session,
    ack,
    batch,
    document,
    finish,
    from_leader,
    opened,
    refusal,
    run_until_error,
    stored,
    stream_info,
)

pytestmark = pytest.mark.usefixtures("clock")  # a stalled machine reaches no deadline

NO_RESPONDERS = Reply(b"NATS/1.0 503\r\n\r\n", b"")
ELECTION = refusal(10008)
NO_STREAM = document({"error": {"code": 404, "err_code": 10059, "description": "none"}})


def new_bucket(connect_timeout: float = 60.0) -> Bucket:
    """Return a bucket that this process has not opened yet."""
    session = Session()
    session.connect_timeout = connect_timeout
    return Bucket(BucketConfig("b", request_timeout=0.05), session)


def subjects(asked: list[Any]) -> list[list[bytes]]:
    """Return the subjects of all requests, one list for each write to the connection."""
    writes = [each if isinstance(each, Sequence) else [each] for each in asked]
    return [[request.subject for request in each] for each in writes]


def result_of(clock: Clock, steps: Steps[Any], answer: object, others: object) -> Any:
    """Return the result of an operation that gets ``answer`` first and ``others`` afterwards."""
    effect = next(steps)
    try:
        while True:
            if isinstance(effect, Pause):
                clock.now += effect.seconds
                effect = steps.send(None)
            else:
                effect, answer = steps.send(answer), others
    except StopIteration as end:
        return end.value


INFO = b"$JS.API.STREAM.INFO.KV_b"
KEY = b"$KV.b.=.1.k"


# A stream that is known ----------------------------------------------------------------------


def test_a_set_waits_for_the_leader() -> None:
    bucket = opened()
    info = stream_info(bucket.config)
    answers = [NO_RESPONDERS, ELECTION, ELECTION, info, [NO_RESPONDERS], info, [ack(5)]]
    revision, asked = finish(bucket.put(":1:k", WRITE), *answers)
    assert revision == 5
    assert subjects(asked) == [[KEY], [INFO], [INFO], [INFO], [KEY], [INFO], [KEY]]
    assert bucket.stream.server.suspended == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("operation", "answer", "found"),
    [
        (lambda bucket: bucket.get(":1:k"), stored(5), b"value"),
        (lambda bucket: bucket.get(":1:k"), MISSING, None),
        (lambda bucket: bucket.get_many([":1:k"]), batch(stored(5)), b"value"),
    ],
    ids=["get", "missing", "get_many"],
)
@pytest.mark.parametrize("reads", ["any", "leader"])
def test_reads_wait_for_the_leader(
    operation: Callable[[Bucket], Steps[Any]], answer: Any, found: bytes | None, reads: str
) -> None:
    bucket = opened(reads=reads)
    unanswered: Any = NO_RESPONDERS
    if reads == "leader":
        unanswered, answer = ELECTION, NO_MESSAGE if found is None else from_leader(5)
    elif isinstance(answer, list):
        unanswered = [NO_RESPONDERS]
    pipelined = isinstance(next(operation(bucket)), list)
    first = [unanswered] if pipelined else unanswered
    result, asked = finish(operation(bucket), first, ELECTION, stream_info(bucket.config), [answer])
    entry = result.get(":1:k") if isinstance(result, dict) else result
    assert (None if entry is None else entry.payload) == found
    assert len(asked) == 4


def test_only_requests_that_reached_no_stream_are_repeated() -> None:
    bucket = opened()
    writes = {f":1:{name}": WRITE for name in "abc"}
    answers = [[ack(5), NO_RESPONDERS, OutcomeUnknown()], stream_info(bucket.config), [ack(6)]]
    failed, asked = finish(bucket.put_many(writes), *answers)
    assert list(failed) == [":1:c"]
    assert subjects(asked)[-1] == [b"$KV.b.=.1.b"]


def test_reads_of_counters_wait_for_the_leader() -> None:
    stream = counting.opened()
    info = counting.info(stream.config)
    first, then = counting.refusal(10008, 503), [batch(counting.stored(5, 7))]
    assert finish(stream.get_many(["k"]), [[NO_RESPONDERS]], first, info, then)[0] == {"k": 7}
    assert finish(stream.matching(">"), [[NO_RESPONDERS]], first, info, then)[0] == {"k": 7}
    value = [NO_RESPONDERS, first, info, [counting.stored(5, 7)]]
    assert finish(stream.value("k"), *value)[0] == 7


def test_a_counter_on_a_lagging_replica_waits_for_the_leader() -> None:
    stream = counting.opened(replicas=3)
    finish(stream.incr("k", 1), counting.ack(9, 8))
    election = counting.refusal(10008, 503)
    old = batch(counting.stored(5, 7))
    answers = [[old], [election], election, counting.info(stream.config, 9)]
    totals, _ = finish(stream.get_many(["k"]), *answers, [counting.from_leader(9, 8)])
    assert totals == {"k": 8}


def test_a_lookup_without_an_answer_during_an_election_is_repeated() -> None:
    bucket = opened(request_timeout=60)
    answers = [NO_RESPONDERS, OutcomeUnknown(), stream_info(bucket.config), [ack(5)]]
    revision, asked = finish(bucket.put(":1:k", WRITE), *answers)
    assert revision == 5
    assert (asked[1].lane.timeout, asked[1].lane.probe) == (15, None)


def test_an_unanswered_lookup_does_not_put_a_write_in_doubt(clock: Clock) -> None:
    bucket = opened()
    error, _ = run_until_error(clock, bucket.put(":1:k", WRITE), NO_RESPONDERS, OutcomeUnknown())
    assert type(error) is NoLeader
    assert type(error.__cause__) is OutcomeUnknown


@pytest.mark.parametrize("leader", [False, True], ids=["no leader", "no responders"])
def test_the_wait_ends_and_the_circuit_opens(clock: Clock, leader: bool) -> None:
    bucket = opened(request_timeout=0.05)
    answers = (
        [NO_RESPONDERS, *[stream_info(bucket.config), [NO_RESPONDERS]] * 100]
        if leader
        else [NO_RESPONDERS]
    )
    began = clock.now
    error, asked = run_until_error(clock, bucket.put(":1:k", WRITE), *answers, ELECTION)
    assert type(error) is NoLeader
    assert 0.05 <= clock.now - began < 0.05 + 0.2 + 1e-6  # REQUEST_TIMEOUT and one pause
    assert len(asked) > 3
    assert bucket.stream.server.suspended == [bucket.stream.lanes.writes]  # type: ignore[attr-defined]


def test_only_the_first_of_many_calls_waits_for_the_full_timeout(clock: Clock) -> None:
    """The leader answers lookups, but published messages reach no stream."""
    bucket = opened(request_timeout=10)
    answers = [NO_RESPONDERS, *[stream_info(bucket.config), [NO_RESPONDERS]] * 200]

    def waited() -> float:
        began = clock.now
        error, _ = run_until_error(clock, bucket.put(":1:k", WRITE), *answers)
        assert type(error) is NoLeader
        return clock.now - began

    assert waited() >= 10
    assert sum(waited() for _ in range(20)) < 20 * (0.5 + 0.2)
    assert bucket.stream.server.suspended == [bucket.stream.lanes.writes]  # type: ignore[attr-defined]
    clock.now += 11
    assert waited() >= 10


def test_a_batch_that_was_partly_applied_raises_outcome_unknown(clock: Clock) -> None:
    bucket = opened()
    writes = {f":1:{name}": WRITE for name in "ab"}
    with pytest.raises(OutcomeUnknown, match="Only a part was done"):
        finish(bucket.put_many(writes), [ack(5), NO_RESPONDERS], NotSent())
    info = stream_info(bucket.config)
    later = [[NO_RESPONDERS, NO_RESPONDERS], info, [ack(6), NO_RESPONDERS], NotSent()]
    with pytest.raises(OutcomeUnknown, match="Only a part was done"):
        finish(bucket.put_many(writes), *later)
    with pytest.raises(NotSent):
        finish(bucket.put_many(writes), [NO_RESPONDERS, NO_RESPONDERS], NotSent())


def test_only_keys_that_found_no_leader_fail(clock: Clock) -> None:
    bucket = opened()
    writes = {f":1:{name}": WRITE for name in "ab"}
    failed = result_of(clock, bucket.put_many(writes), [ack(5), NO_STREAM], ELECTION)
    assert {key: type(error) for key, error in failed.items()} == {":1:b": NoLeader}


# Requests that only the leader answers ----------------------------------------------------------


def test_a_read_without_an_answer_of_the_leader_is_repeated() -> None:
    bucket = opened(reads="leader", request_timeout=60)
    entry, asked = finish(bucket.get(":1:k"), OutcomeUnknown(), from_leader(5))
    assert entry.payload == b"value"
    assert [each.lane.timeout for each in asked] == [15, 15]


def test_only_reads_of_a_batch_without_an_answer_are_repeated() -> None:
    bucket = opened(reads="leader", request_timeout=60)
    answers = [[OutcomeUnknown(), NO_MESSAGE], [from_leader(5)]]
    entries, asked = finish(bucket.get_many([":1:k", ":1:none"]), *answers)
    assert list(entries) == [":1:k"]
    assert [len(each) for each in asked] == [2, 1]


@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_reads_that_the_leader_never_answers_raise_outcome_unknown(
    clock: Clock, many: bool
) -> None:
    bucket = opened(reads="leader", request_timeout=60)
    steps: Steps[Any] = bucket.get_many([":1:k"]) if many else bucket.get(":1:k")
    effect = next(steps)
    asked = 0
    with pytest.raises(OutcomeUnknown):  # noqa: PT012
        while True:
            asked += 1
            clock.now += bucket.stream.lanes.questions.timeout
            error = OutcomeUnknown()
            effect = steps.send([error]) if isinstance(effect, list) else steps.throw(error)
    assert asked == 4
    assert bucket.stream.server.suspended == [bucket.stream.lanes.writes]  # type: ignore[attr-defined]
    # The next reads do not wait.
    bucket.stream.lanes.writes.fault = "no leader"
    with pytest.raises(NotSent, match="no leader"):
        next(bucket.get_many([":1:k"]) if many else bucket.get(":1:k"))


# A stream that another process is creating ------------------------------------------------------


def test_opening_a_stream_waits_for_its_first_leader() -> None:
    bucket = new_bucket()
    level = document({"api": {"level": 1}})
    created = [ELECTION, NO_STREAM, level, refusal(10058), ELECTION, stream_info(bucket.config)]
    _, asked = finish(bucket.stream.ready(), *created)
    assert [each.subject.split(b".")[-2] for each in asked].count(b"INFO") == 4
    assert bucket.stream.is_ready


def test_opening_waits_for_the_first_leader_for_connect_timeout(clock: Clock) -> None:
    bucket = new_bucket(connect_timeout=2)
    began = clock.now
    error, _ = run_until_error(clock, bucket.stream.ready(), ELECTION)
    assert type(error) is NoLeader
    assert 2 <= clock.now - began < 2.2 + 1e-6
    assert bucket.stream.server.suspended == [bucket.stream.lanes.writes]  # type: ignore[attr-defined]


def test_calls_do_not_wait_after_one_that_found_no_leader() -> None:
    bucket = new_bucket()
    bucket.stream.lanes.writes.fault = (
        "writes to the bucket b: the stream has no leader at the moment"
    )
    for operation in (bucket.put(":1:k", WRITE), bucket.get(":1:k")):
        with pytest.raises(NotSent, match="has no leader at the moment"):
            next(operation)


def test_a_lookup_of_a_new_stream_without_an_answer_is_repeated() -> None:
    bucket = new_bucket(connect_timeout=4)
    info = stream_info(bucket.config)
    _, (first, second) = finish(bucket.stream.ready(), OutcomeUnknown(), info)
    assert first.subject == second.subject == INFO
    # The lookup fits into the time for the first leader and does not open the circuit.
    assert (first.lane.timeout, first.lane.probe) == (1, None)


def test_opening_waits_until_every_server_knows_the_new_stream() -> None:
    bucket = new_bucket()
    level = document({"api": {"level": 1}})
    made = document({"config": bucket.config.stream_config(), "state": {}})
    info = stream_info(bucket.config)
    finish(bucket.stream.ready(), NO_STREAM, level, made, NO_STREAM, info)
    assert bucket.stream.is_ready


NO_PEERS = refusal(10005)


def test_creating_a_stream_waits_for_servers_for_its_replicas(clock: Clock) -> None:
    bucket = new_bucket()
    level = document({"api": {"level": 1}})
    created = [NO_STREAM, level, NO_PEERS, stream_info(bucket.config)]
    finish(bucket.stream.ready(), *created)
    assert bucket.stream.is_ready


def test_creating_waits_for_servers_for_the_replicas_for_connect_timeout(clock: Clock) -> None:
    bucket = new_bucket(connect_timeout=2)
    began = clock.now
    level = document({"api": {"level": 1}})
    answers = cycle([NO_STREAM, level, NO_PEERS])
    error, _ = run_until_error(clock, bucket.stream.ready(), *islice(answers, 300))
    assert isinstance(error, ServerError)
    assert (error.err_code, str(error)[:32]) == (10005, "The bucket b cannot be created: ")
    assert 2 <= clock.now - began < 2.2 + 1e-6
    # Later calls do not wait: the server refuses too many replicas with the same error.
    began = clock.now
    error, _ = run_until_error(clock, bucket.stream.ready(), NO_STREAM, level, NO_PEERS)
    assert isinstance(error, ServerError)
    assert clock.now == began


def test_opening_a_stream_does_not_wait_for_an_unreachable_server() -> None:
    steps = new_bucket().stream.ready()
    next(steps)
    with pytest.raises(NotSent):
        steps.throw(NotSent())


@pytest.mark.parametrize("answer", [ELECTION, OutcomeUnknown(), NotSent()], ids=repr)
def test_a_known_stream_is_read_without_its_leader(answer: object) -> None:
    bucket = opened()
    bucket.stream.server.epoch += 1  # a new connection
    entry, asked = finish(bucket.get(":1:k"), answer, stored(5))
    assert entry.payload == b"value"
    assert len(asked) == 2
    unanswered = isinstance(answer, OutcomeUnknown)
    suspended = [bucket.stream.lanes.writes] if unanswered else []
    assert bucket.stream.server.suspended == suspended  # type: ignore[attr-defined]


def test_a_question_that_is_lost_with_its_connection_does_not_open_the_circuit() -> None:
    bucket = opened()
    session: Any = bucket.stream.server
    session.epoch += 1  # a new connection
    steps = bucket.get(":1:k")
    next(steps)
    session.epoch += 1  # and another one, as that was lost with the question
    steps.throw(OutcomeUnknown("the connection was lost"))
    with pytest.raises(StopIteration):
        steps.send(stored(5))
    assert session.suspended == []


def test_a_known_stream_is_not_looked_up_while_its_circuit_is_open() -> None:
    bucket = opened()
    bucket.stream.server.epoch += 1  # a new connection
    bucket.stream.lanes.writes.fault = "no leader"
    _, asked = finish(bucket.get(":1:k"), stored(5))
    assert len(asked) == 1


# Unexpected replies are no sign of an election, and repeating the request does not help ---------


def test_an_unexpected_reply_about_a_new_stream_is_not_requested_again() -> None:
    level = document({"api": {"level": 1}})
    with pytest.raises(UnexpectedReply):
        finish(new_bucket().stream.ready(), document({"config": "none"}), level)


@pytest.mark.parametrize(
    "level", [NO_RESPONDERS, OutcomeUnknown()], ids=["no responders", "no answer"]
)
def test_an_unexpected_reply_is_raised_although_the_next_request_fails(level: object) -> None:
    bucket = new_bucket()
    with pytest.raises(UnexpectedReply):
        finish(bucket.stream.ready(), document({"config": "none"}), level)
    assert bucket.stream.server.suspended == []  # type: ignore[attr-defined]


def test_an_unexpected_reply_about_a_known_stream_is_not_requested_again() -> None:
    level = document({"api": {"level": 1}})
    with pytest.raises(UnexpectedReply):
        finish(opened().put(":1:k", WRITE), NO_RESPONDERS, document({"config": "none"}), level)
    reconnected = opened()
    reconnected.stream.server.epoch += 1
    with pytest.raises(UnexpectedReply):
        finish(reconnected.put(":1:k", WRITE), document({"config": "none"}), level)
    assert reconnected.stream.lanes.writes.fault is None


def test_an_unexpected_reply_of_the_leader_is_not_requested_again() -> None:
    bucket = opened(reads="leader", request_timeout=60)
    with pytest.raises(UnexpectedReply):
        finish(bucket.get(":1:k"), UnexpectedReply())
    with pytest.raises(UnexpectedReply):
        finish(bucket.get_many([":1:k", ":1:l"]), [UnexpectedReply(), from_leader(5)])
