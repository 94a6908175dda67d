"""Reads of counters as steps on bytes: one or many, by wildcards, from lagging replicas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.exceptions import (
    CounterUnavailable,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    ServerTooOld,
    Unavailable,
    Unreadable,
)
from tests.support.answers import (
    MISSING,
    NO_MESSAGE,
    Clock,
    Session,
    batch,
    document,
    finish,
    run_until_error,
    stream_document,
)
from tests.support.counting import ack, from_leader, info, opened, stored

PURGED = document({"success": True, "purged": 1})
TOO_MANY = [batch()[0]._replace(header=b"NATS/1.0 413 Too Many Results\r\n\r\n")]


# One -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "total"),
    [(MISSING, 0), (stored(8, -3), -3), (stored(8, 10**40), 10**40)],
    ids=["none", "negative", "huge"],
)
def test_a_value_is_read_by_a_direct_get(reply: object, total: int) -> None:
    found, (request,) = finish(opened().value("k"), reply)
    assert found == total
    assert request.subject == b"$JS.API.DIRECT.GET.C.c.k"


@pytest.mark.parametrize(
    "payload", [b"5", b'{"val":"x"}', b'{"val":""}', b'{"val":5}', b"{}", b'{"val":"5"} ', b"\xff"]
)
def test_reading_a_message_that_is_not_a_counter_raises_unreadable(payload: bytes) -> None:
    with pytest.raises(Unreadable, match="the stream C last stored for k is not a counter"):
        finish(opened().value("k"), stored(8, 0, payload=payload))


INVALID_TOTALS = [
    b"5",
    b'{"val":"x"}',
    b'{"val":5}',
    b"{}",
    b"\xff",
    b'{"val":"%b"}' % (b"9" * 20_000),
]


@pytest.mark.parametrize("payload", INVALID_TOTALS, ids=range(len(INVALID_TOTALS)))
def test_a_message_that_is_not_a_counter_affects_only_its_entry(payload: bytes) -> None:
    answer = batch(stored(8, 0, "bad", payload=payload), stored(9, 4, "good"))
    names = ["bad", "good", "none"]
    expected = {"bad": None, "good": 4, "none": 0}
    assert finish(opened().get_many(names), [answer])[0] == expected
    assert finish(opened().stored(names), [answer])[0] == {"bad": None, "good": 4}
    assert finish(opened().matching(">"), [answer])[0] == {"bad": None, "good": 4}
    assert finish(opened().total(">"), [answer])[0] == 4


@pytest.mark.parametrize("failure", [NotSent("gone"), OutcomeUnknown(), NoLeader()], ids=str)
@pytest.mark.parametrize(
    ("operation", "argument"),
    [
        ("value", "k"),
        ("get_many", ["k"]),
        ("matching", ">"),
        ("total", ">"),
        ("sources", "k"),
    ],
)
def test_reads_are_not_repeated(operation: str, argument: object, failure: Unavailable) -> None:
    steps = getattr(opened(), operation)(argument)
    next(steps)
    with pytest.raises(CounterUnavailable, match="counter stream C could not be read") as caught:
        steps.throw(failure)
    assert caught.value.__cause__ is failure
    assert caught.value.may_have_happened is False


# Many ----------------------------------------------------------------------------------------


def test_get_many_reads_one_batch_and_missing_counters_are_0() -> None:
    answer = [batch(stored(8, 5, "b"), stored(9, -1, "a"))]
    totals, ((request,),) = finish(opened().get_many(["a", "b", "none"]), answer)
    assert totals == {"a": -1, "b": 5, "none": 0}
    assert request.subject == b"$JS.API.DIRECT.GET.C"
    assert json.loads(request.payload)["multi_last"] == ["c.a", "c.b", "c.none"]


def test_missing_counters_are_zero_or_left_out() -> None:
    assert finish(opened().get_many(["a", "b"]), [[MISSING]])[0] == {"a": 0, "b": 0}
    assert finish(opened().matching(">"), [[MISSING]])[0] == {}
    assert finish(opened().total(">"), [[MISSING]])[0] == 0
    assert finish(opened().get_many([])) == ({}, [])


def test_get_many_sends_several_batches_in_one_write() -> None:
    names = [f"k{number}" for number in range(2049)]
    _, (requests,) = finish(opened().get_many(names), [[MISSING]] * 3)
    sizes = [len(json.loads(request.payload)["multi_last"]) for request in requests]
    assert sizes == [1024, 1024, 1]


def test_matching_reads_one_batch_with_a_wildcard() -> None:
    answer = [batch(stored(8, 5, "a.x"), stored(9, 7, "a.y"))]
    totals, ((request,),) = finish(opened().matching("a.*"), answer)
    assert totals == {"a.x": 5, "a.y": 7}
    assert json.loads(request.payload)["multi_last"] == ["c.a.*"]
    assert finish(opened().total("a.*"), answer)[0] == 12


@pytest.mark.parametrize(
    "first", [TOO_MANY, batch(stored(8, 5, "a"), pending=1)], ids=["refused", "cut short"]
)
def test_matching_scans_the_stream_if_a_batch_is_too_small(first: list[Any]) -> None:
    stream = opened()
    steps = stream.matching(">")
    next(steps)
    create = steps.send([first])
    assert create.subject.startswith(b"$JS.API.CONSUMER.CREATE.C.")
    config = json.loads(create.payload)["config"]
    assert config["filter_subject"] == "c.>"
    assert config["headers_only"] is False
    fetch = steps.send(document({"num_pending": 2}))
    assert fetch.inbox

    def delivered(number: int, left: int, total: int) -> Any:
        consumer = fetch.subject.rpartition(b".")[2]
        place = (consumer, number, number, left)
        reply_to = b"$JS.ACK.C.%b.1.%d.%d.1700000000000000000.%d" % place
        subject = b"c.k%d" % number
        return stored(number, total)._replace(reply_to=reply_to, subject=subject)

    with pytest.raises(StopIteration) as end:
        steps.send([delivered(1, 1, 5), delivered(2, 0, 6)])
    assert end.value.value == {"k1": 5, "k2": 6}
    (deleted,) = stream.stream.server.posted  # type: ignore[attr-defined]
    assert deleted.subject.startswith(b"$JS.API.CONSUMER.DELETE.C.")


# Sums ----------------------------------------------------------------------------------------


def sources_of(breakdown: str) -> dict[str, int]:
    header = f"Nats-Counter-Sources: {breakdown}\r\n"
    result: dict[str, int] = finish(opened().sources("k"), stored(8, 7, header=header))[0]
    return result


def test_sources_returns_the_parts_of_a_sum() -> None:
    assert sources_of('{"EU":{"eu.k":"5"},"US:x1Y2":{"us.k":"1","us2.k":"1"}}') == {
        "EU": 5,
        "US:x1Y2": 2,
    }
    assert finish(opened().sources("k"), stored(8, 7))[0] == {}
    assert finish(opened().sources("k"), MISSING)[0] == {}


@pytest.mark.parametrize("breakdown", ["", "[]", '{"EU":5}', '{"EU":{"k":"x"}}', '{"EU":{"k":[]}}'])
def test_an_invalid_breakdown_raises_unreadable(breakdown: str) -> None:
    with pytest.raises(Unreadable, match="no breakdown by sources for the counter k"):
        sources_of(breakdown)


# Replicas that lag ---------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("lagging", [MISSING, stored(7, 4)], ids=["none", "older"])
def test_the_leader_is_asked_if_a_reply_is_older_than_an_own_increment(
    lagging: object, replicas: int
) -> None:
    stream = opened(replicas=replicas)
    finish(stream.incr("k", 1), ack(8, 5))
    total, asked = finish(stream.value("k"), lagging, from_leader(8, 5))
    assert total == 5
    assert asked[1].subject == b"$JS.API.STREAM.MSG.GET.C"
    assert finish(stream.value("k"), stored(9, 6))[0] == 6


def test_the_leader_is_asked_for_stale_counters_of_a_batch() -> None:
    stream = opened(replicas=3)
    for number, name in enumerate(("a.x", "a.y", "b.z"), start=8):
        finish(stream.incr(name, 1), ack(number, 5))
    lagging = [batch(stored(7, 4, "a.x"))]
    two = [from_leader(8, 5, "a.x"), from_leader(9, 5, "a.y")]
    assert finish(stream.get_many(["a.x", "a.y"]), lagging, two)[0] == {"a.x": 5, "a.y": 5}
    # By wildcards too: counters missing from the reply are asked for.
    assert finish(stream.matching("a.*"), lagging, two[::-1])[0] == {"a.x": 5, "a.y": 5}
    everything = [batch(stored(8, 5, "a.x"), stored(9, 5, "a.y"))]
    assert finish(stream.total(">"), everything, [from_leader(10, 5, "b.z")])[0] == 15


def test_a_duplicate_is_recorded_as_an_own_increment() -> None:
    stream = opened(replicas=3)
    pair = [from_leader(8, 5), from_leader(8, 5)]
    finish(stream.incr("k", 1), OutcomeUnknown(), ack_of_duplicate(8), pair)
    assert finish(stream.value("k"), stored(7, 4), from_leader(8, 5))[0] == 5


def test_the_message_of_another_increment_is_not_the_total_of_a_duplicate() -> None:
    """The total is requested once more, with the same id."""
    stream = opened()
    swapped, own = [from_leader(9, 50), from_leader(9, 50)], [from_leader(8, 5), from_leader(9, 50)]
    answers = [OutcomeUnknown(), ack_of_duplicate(8), swapped, ack_of_duplicate(8), own]
    assert finish(stream.incr("k", 1), *answers)[0] == 5


def ack_of_duplicate(sequence: int) -> Any:
    return document({"stream": "C", "seq": sequence, "duplicate": True})


def test_the_old_total_is_stale_after_a_reset() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(8, 5))
    finish(stream.reset("k"), PURGED, info(stream.config, last_seq=20))
    assert finish(stream.value("k"), stored(8, 5), NO_MESSAGE)[0] == 0
    # The leader has answered, but another replica may still lag.
    assert finish(stream.value("k"), stored(8, 5), NO_MESSAGE)[0] == 0
    assert finish(stream.value("k"), MISSING)[0] == 0
    # Others count again.
    assert finish(stream.value("k"), stored(21, 1))[0] == 1


def test_old_totals_are_stale_after_a_purge() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(8, 5))
    finish(stream.purge(["j", "k"]), [PURGED, PURGED], info(stream.config, last_seq=20))
    for counter in ("j", "k"):
        lagging = stored(8, 5, counter)
        assert finish(stream.value(counter), lagging, NO_MESSAGE)[0] == 0
        assert finish(stream.value(counter), MISSING)[0] == 0


def test_totals_up_to_the_purged_sequence_are_stale() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(9, 6))
    finish(stream.purge(["j", "k"], {"j": 8, "k": 8}), [PURGED, PURGED])
    assert finish(stream.value("j"), stored(8, 5, "j"), NO_MESSAGE)[0] == 0
    assert finish(stream.value("j"), stored(9, 6, "j"))[0] == 6
    # An own increment after that sequence is still recorded.
    assert finish(stream.value("k"), MISSING, from_leader(9, 6))[0] == 6
    assert finish(stream.value("k"), stored(8, 5), from_leader(9, 6))[0] == 6


def test_a_reset_succeeds_if_the_last_sequence_cannot_be_read() -> None:
    stream = opened(replicas=3)
    _, asked = finish(stream.reset("k"), PURGED, NotSent())
    assert len(asked) == 2


# Set and take --------------------------------------------------------------------------------


def test_set_adds_the_difference() -> None:
    total, (question, increment) = finish(opened().set("k", 3), from_leader(8, 5), ack(9, 3))
    assert total == 3
    assert question.subject == b"$JS.API.STREAM.MSG.GET.C"
    assert b"Nats-Incr: -2\r\n" in increment.header
    assert finish(opened().set("k", 5), from_leader(8, 5))[0] == 5
    assert finish(opened().set("k", 0), NO_MESSAGE)[0] == 0


@pytest.mark.parametrize("total", [1.5, True, "3", None])
def test_set_of_a_non_integer_raises_type_error(total: Any) -> None:
    with pytest.raises(TypeError, match="total must be an integer"):
        next(opened().set("k", total))


def increments(asked: list[Any]) -> list[str]:
    headers = [each.header.decode() for each in asked if each.header]
    return [header.split("Nats-Incr: ")[1].split("\r\n")[0] for header in headers]


def test_take_subtracts_and_returns_true() -> None:
    taken, asked = finish(opened().take("k", 2, 0), stored(8, 2), ack(9, 0))
    assert taken is True
    assert increments(asked) == ["-2"]
    assert finish(opened().take("k", 1, -5), MISSING, ack(9, -1))[0] is True


def test_take_below_the_floor_returns_false_without_a_write() -> None:
    taken, asked = finish(opened().take("k", 1, 0), stored(8, 0))
    assert taken is False
    assert increments(asked) == []
    assert finish(opened().take("k", 2, 5), stored(8, 6))[0] is False


def test_take_is_undone_if_another_was_faster() -> None:
    taken, asked = finish(opened().take("k", 2, 0), stored(8, 2), ack(10, -1), ack(11, 1))
    assert taken is False
    assert increments(asked) == ["-2", "+2"]


def test_the_error_says_if_a_take_could_not_be_undone(clock: Clock) -> None:
    steps = opened().take("k", 2, 0)
    error, _ = run_until_error(clock, steps, stored(8, 2), ack(10, -1), NotSent())
    assert isinstance(error, CounterUnavailable)
    assert "2 of k were not there to take" in str(error)
    assert "too low by 2" in str(error)
    assert error.may_have_happened is True


@pytest.mark.parametrize(
    ("n", "floor", "kind"),
    [(0, 0, ValueError), (-1, 0, ValueError), (1.0, 0, TypeError), (1, 0.5, TypeError)],
)
def test_take_of_an_invalid_amount_raises(n: Any, floor: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^(n|floor) must be "):
        next(opened().take("k", n, floor))


# Too old -------------------------------------------------------------------------------------


class OldServer(Session):
    server = "nats-server 2.11.9"


@pytest.mark.parametrize(
    "found", [{"allow_msg_counter": False}, None], ids=["created by it", "missing"]
)
def test_the_error_names_an_old_server_and_the_version_needed(found: Any) -> None:
    missing = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    config = CounterConfig("C", "c")
    old_document = stream_document(config)
    old_document["config"].update(found or {})
    reply = document(old_document if found else missing)
    stream = CounterStream(config, OldServer())
    with pytest.raises(ServerTooOld) as caught:
        finish(stream.value("k"), reply, document({"api": {"level": 1}}))
    words = str(caught.value)
    assert "counter stream C needs nats-server 2.12.1 or newer" in words
    assert "this is nats-server 2.11.9" in words
