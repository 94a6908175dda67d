"""Reading counters as steps on bytes: one or many, by wildcards, and from replicas that lag."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_nats.client.counterconfig import CounterConfig
from django_nats.client.counters import CounterStream
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
    until_it_gives_up,
)
from tests.support.counting import ack, info, leaders, opened, stored

PURGED = document({"success": True, "purged": 1})
TOO_MANY = [batch()[0]._replace(header=b"NATS/1.0 413 Too Many Results\r\n\r\n")]


# One -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "total"),
    [(MISSING, 0), (stored(8, -3), -3), (stored(8, 10**40), 10**40)],
    ids=["none", "negative", "huge"],
)
def test_a_value_is_a_direct_get(reply: object, total: int) -> None:
    found, (request,) = finish(opened().value("k"), reply)
    assert found == total
    assert request.subject == b"$JS.API.DIRECT.GET.C.c.k"


@pytest.mark.parametrize(
    "payload", [b"5", b'{"val":"x"}', b'{"val":""}', b'{"val":5}', b"{}", b'{"val":"5"} ', b"\xff"]
)
def test_what_is_no_counter_is_not_read_as_one(payload: bytes) -> None:
    with pytest.raises(Unreadable, match="the stream C last stored for k is no counter"):
        finish(opened().value("k"), stored(8, 0, payload=payload))


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
def test_reading_fails_at_once(operation: str, argument: object, failure: Unavailable) -> None:
    steps = getattr(opened(), operation)(argument)
    next(steps)
    with pytest.raises(CounterUnavailable, match="counter stream C could not be read") as caught:
        steps.throw(failure)
    assert caught.value.__cause__ is failure
    assert caught.value.may_have_happened is False


# Many ----------------------------------------------------------------------------------------


def test_many_are_one_batch_and_missing_ones_are_0() -> None:
    answer = [batch(stored(8, 5, "b"), stored(9, -1, "a"))]
    totals, ((request,),) = finish(opened().get_many(["a", "b", "none"]), answer)
    assert totals == {"a": -1, "b": 5, "none": 0}
    assert request.subject == b"$JS.API.DIRECT.GET.C"
    assert json.loads(request.payload)["multi_last"] == ["c.a", "c.b", "c.none"]


def test_none_at_all() -> None:
    assert finish(opened().get_many(["a", "b"]), [[MISSING]])[0] == {"a": 0, "b": 0}
    assert finish(opened().matching(">"), [[MISSING]])[0] == {}
    assert finish(opened().total(">"), [[MISSING]])[0] == 0
    assert finish(opened().get_many([])) == ({}, [])


def test_more_than_a_batch_are_several_in_one_write() -> None:
    names = [f"k{number}" for number in range(2049)]
    _, (requests,) = finish(opened().get_many(names), [[MISSING]] * 3)
    sizes = [len(json.loads(request.payload)["multi_last"]) for request in requests]
    assert sizes == [1024, 1024, 1]


def test_matching_is_one_batch_with_a_wildcard() -> None:
    answer = [batch(stored(8, 5, "a.x"), stored(9, 7, "a.y"))]
    totals, ((request,),) = finish(opened().matching("a.*"), answer)
    assert totals == {"a.x": 5, "a.y": 7}
    assert json.loads(request.payload)["multi_last"] == ["c.a.*"]
    assert finish(opened().total("a.*"), answer)[0] == 12


@pytest.mark.parametrize(
    "first", [TOO_MANY, batch(stored(8, 5, "a"), pending=1)], ids=["refused", "cut short"]
)
def test_more_than_a_batch_can_hold_are_walked_through(first: list[Any]) -> None:
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
        reply_to = b"$JS.ACK.C.x.1.%d.%d.1700000000000000000.%d" % (number, number, left)
        subject = b"c.k%d" % number
        return stored(number, total)._replace(reply_to=reply_to, subject=subject)

    with pytest.raises(StopIteration) as end:
        steps.send([delivered(1, 1, 5), delivered(2, 0, 6)])
    assert end.value.value == {"k1": 5, "k2": 6}
    (deleted,) = stream._server.posted  # type: ignore[attr-defined]
    assert deleted.subject.startswith(b"$JS.API.CONSUMER.DELETE.C.")


# Sums ----------------------------------------------------------------------------------------


def sources_of(told: str) -> dict[str, int]:
    header = f"Nats-Counter-Sources: {told}\r\n"
    result: dict[str, int] = finish(opened().sources("k"), stored(8, 7, header=header))[0]
    return result


def test_what_a_sum_is_made_of() -> None:
    assert sources_of('{"EU":{"eu.k":"5"},"US:x1Y2":{"us.k":"1","us2.k":"1"}}') == {
        "EU": 5,
        "US:x1Y2": 2,
    }
    assert finish(opened().sources("k"), stored(8, 7))[0] == {}
    assert finish(opened().sources("k"), MISSING)[0] == {}


@pytest.mark.parametrize("told", ["", "[]", '{"EU":5}', '{"EU":{"k":"x"}}', '{"EU":{"k":[]}}'])
def test_what_is_no_breakdown(told: str) -> None:
    with pytest.raises(Unreadable, match="The stream C tells of k's sources"):
        sources_of(told)


# Replicas that lag ---------------------------------------------------------------------------


def test_a_lone_servers_answers_are_never_stale() -> None:
    stream = opened()
    finish(stream.incr("k", 1), ack(8, 5))
    assert finish(stream.value("k"), stored(7, 4))[0] == 4


@pytest.mark.parametrize("lagging", [MISSING, stored(7, 4)], ids=["none", "older"])
def test_what_is_older_than_the_own_increment_is_asked_of_the_leader(lagging: object) -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(8, 5))
    total, asked = finish(stream.value("k"), lagging, leaders(8, 5))
    assert total == 5
    assert asked[1].subject == b"$JS.API.STREAM.MSG.GET.C"
    assert finish(stream.value("k"), stored(9, 6))[0] == 6


def test_so_are_those_of_many() -> None:
    stream = opened(replicas=3)
    for number, name in enumerate(("a.x", "a.y", "b.z"), start=8):
        finish(stream.incr(name, 1), ack(number, 5))
    lagging = [batch(stored(7, 4, "a.x"))]
    two = [leaders(8, 5, "a.x"), leaders(9, 5, "a.y")]
    assert finish(stream.get_many(["a.x", "a.y"]), lagging, two)[0] == {"a.x": 5, "a.y": 5}
    # By wildcards too, where it must be known what is missing.
    assert finish(stream.matching("a.*"), lagging, two[::-1])[0] == {"a.x": 5, "a.y": 5}
    everything = [batch(stored(8, 5, "a.x"), stored(9, 5, "a.y"))]
    assert finish(stream.total(">"), everything, [leaders(10, 5, "b.z")])[0] == 15


def test_a_duplicate_is_an_increment_of_this_process() -> None:
    stream = opened(replicas=3)
    pair = [leaders(8, 5), leaders(8, 5)]
    finish(stream.incr("k", 1), OutcomeUnknown(), ack_of_duplicate(8), pair)
    assert finish(stream.value("k"), stored(7, 4), leaders(8, 5))[0] == 5


def ack_of_duplicate(sequence: int) -> Any:
    return document({"stream": "C", "seq": sequence, "duplicate": True})


def test_after_a_reset_the_old_total_is_stale_and_none_is_not() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(8, 5))
    finish(stream.reset("k"), PURGED, info(stream.config, last_seq=20))
    assert finish(stream.value("k"), stored(8, 5), NO_MESSAGE)[0] == 0
    # The leader said so, but another replica may still lag.
    assert finish(stream.value("k"), stored(8, 5), NO_MESSAGE)[0] == 0
    assert finish(stream.value("k"), MISSING)[0] == 0
    # Others count again.
    assert finish(stream.value("k"), stored(21, 1))[0] == 1


def test_so_it_is_after_a_purge() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(8, 5))
    finish(stream.purge(["j", "k"]), [PURGED, PURGED], info(stream.config, last_seq=20))
    for counter in ("j", "k"):
        lagging = stored(8, 5, counter)
        assert finish(stream.value(counter), lagging, NO_MESSAGE)[0] == 0
        assert finish(stream.value(counter), MISSING)[0] == 0


def test_a_purge_up_to_a_sequence_is_known_up_to_there() -> None:
    stream = opened(replicas=3)
    finish(stream.incr("k", 1), ack(9, 6))
    finish(stream.purge(["j", "k"], {"j": 8, "k": 8}), [PURGED, PURGED])
    assert finish(stream.value("j"), stored(8, 5, "j"), NO_MESSAGE)[0] == 0
    assert finish(stream.value("j"), stored(9, 6, "j"))[0] == 6
    # What this process added after that is not forgotten.
    assert finish(stream.value("k"), MISSING, leaders(9, 6))[0] == 6
    assert finish(stream.value("k"), stored(8, 5), leaders(9, 6))[0] == 6


def test_a_reset_is_done_even_if_it_is_not_known_how_far() -> None:
    stream = opened(replicas=3)
    _, asked = finish(stream.reset("k"), PURGED, NotSent())
    assert len(asked) == 2


# Set and take --------------------------------------------------------------------------------


def test_set_adds_the_difference() -> None:
    total, (question, increment) = finish(opened().set("k", 3), leaders(8, 5), ack(9, 3))
    assert total == 3
    assert question.subject == b"$JS.API.STREAM.MSG.GET.C"
    assert b"Nats-Incr: -2\r\n" in increment.header
    assert finish(opened().set("k", 5), leaders(8, 5))[0] == 5
    assert finish(opened().set("k", 0), NO_MESSAGE)[0] == 0


@pytest.mark.parametrize("total", [1.5, True, "3", None])
def test_set_takes_integers(total: Any) -> None:
    with pytest.raises(TypeError, match="total must be an integer"):
        next(opened().set("k", total))


def increments(asked: list[Any]) -> list[str]:
    headers = [each.header.decode() for each in asked if each.header]
    return [header.split("Nats-Incr: ")[1].split("\r\n")[0] for header in headers]


def test_take() -> None:
    taken, asked = finish(opened().take("k", 2, 0), stored(8, 2), ack(9, 0))
    assert taken is True
    assert increments(asked) == ["-2"]
    assert finish(opened().take("k", 1, -5), MISSING, ack(9, -1))[0] is True


def test_what_is_sold_out_is_not_written_to() -> None:
    taken, asked = finish(opened().take("k", 1, 0), stored(8, 0))
    assert taken is False
    assert increments(asked) == []
    assert finish(opened().take("k", 2, 5), stored(8, 6))[0] is False


def test_what_another_took_meanwhile_is_given_back() -> None:
    taken, asked = finish(opened().take("k", 2, 0), stored(8, 2), ack(10, -1), ack(11, 1))
    assert taken is False
    assert increments(asked) == ["-2", "+2"]


def test_what_could_not_be_given_back_is_said(clock: Clock) -> None:
    steps = opened().take("k", 2, 0)
    error, _ = until_it_gives_up(clock, steps, stored(8, 2), ack(10, -1), NotSent())
    assert isinstance(error, CounterUnavailable)
    assert "2 of k were not there to take" in str(error)
    assert "too low by 2" in str(error)
    assert error.may_have_happened is True


@pytest.mark.parametrize(
    ("n", "floor", "kind"),
    [(0, 0, ValueError), (-1, 0, ValueError), (1.0, 0, TypeError), (1, 0.5, TypeError)],
)
def test_what_cannot_be_taken(n: Any, floor: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^(n|floor) must be "):
        next(opened().take("k", n, floor))


# Too old -------------------------------------------------------------------------------------


class OldServer(Session):
    server = "nats-server 2.11.9"


@pytest.mark.parametrize("found", [{"subjects": ["c.>"]}, None], ids=["made by it", "none"])
def test_a_server_that_is_too_old_is_named_with_the_one_it_takes(found: Any) -> None:
    missing = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    reply = document({"config": found, "state": {}} if found else missing)
    stream = CounterStream(CounterConfig("C", "c"), OldServer())
    with pytest.raises(ServerTooOld) as caught:
        finish(stream.value("k"), reply, document({"api": {"level": 1}}))
    words = str(caught.value)
    assert "counter stream C needs nats-server 2.12.1 or newer" in words
    assert "this is nats-server 2.11.9" in words
