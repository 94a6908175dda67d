"""Operations as generators: their requests, and iterations driven item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.entry import Write
from django_nats.client.protocol.steps import (
    Item,
    Lane,
    Pause,
    Publications,
    Request,
    Steps,
    next_item,
)
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams import requests
from django_nats.client.streams.requests import begun
from django_nats.exceptions import NotSent, OutcomeUnknown


def items(log: list[object]) -> Steps[None]:
    try:
        log.append((yield Pause(1)))
        yield Item("a")
        try:
            log.append((yield Pause(2)))
        except ValueError as error:
            log.append(str(error))
        yield Item(None)
    finally:
        log.append("closed")


def test_an_iteration_continues_from_item_to_item() -> None:
    log: list[object] = []
    steps = items(log)
    first = next_item(steps)
    assert next(first) == Pause(1)
    with pytest.raises(StopIteration) as ended:
        first.send("answer")
    assert ended.value.value == Item("a")
    second = next_item(steps)
    assert next(second) == Pause(2)
    with pytest.raises(StopIteration) as ended:
        second.send("another")
    # An item may have any value, even None. Only the absence of an item is the end.
    assert ended.value.value == Item(None)
    with pytest.raises(StopIteration) as ended:
        next(next_item(steps))
    assert ended.value.value is None
    assert log == ["answer", "another", "closed"]


def test_a_failure_is_thrown_into_the_iteration() -> None:
    log: list[object] = []
    steps = items(log)
    first = next_item(steps)
    next(first)
    with pytest.raises(StopIteration):
        first.send(0)
    second = next_item(steps)
    next(second)
    with pytest.raises(StopIteration) as ended:
        second.throw(ValueError("no answer"))
    assert ended.value.value == Item(None)
    assert log == [0, "no answer"]


def test_a_failure_that_is_not_handled_is_raised() -> None:
    log: list[object] = []
    first = next_item(items(log))
    next(first)
    with pytest.raises(KeyError, match="why"):
        first.throw(KeyError("why"))
    assert log == ["closed"]


def test_closing_a_step_closes_the_iteration() -> None:
    log: list[object] = []
    first = next_item(items(log))
    next(first)
    first.close()
    assert log == ["closed"]


def test_the_repr_of_a_request_shows_no_value() -> None:
    lane = Lane("reads of a bucket", 1.0)
    assert repr(Request(lane, "a.subject", b"secret")) == "<Request a.subject 6 B>"
    assert repr(lane) == "<Lane reads of a bucket>"
    lane.fault = "it does not answer"
    assert repr(lane) == "<Lane reads of a bucket down>"


class Known(NamedTuple):
    """A session that has connected to a server."""

    epoch: int = 1
    epoch_of_requests: int = 1
    connect_timeout: float = 1.0
    max_payload: int = 1024 * 1024
    server: str = "nats-server"


def test_a_pipeline_that_was_sent_in_part_does_not_raise_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MAX_PIPELINE", 2)
    bucket = Bucket(BucketConfig("a"), Known())
    bucket.stream.opening._opened = 1  # as after a first operation
    bucket.stream.opening._facts.due = bucket.clock.due = math.inf
    refused = NotSent("the circuit is open")
    writes = {key: Write(b"x", None, None) for key in ("a", "b", "c")}

    steps = bucket.put_many(writes)
    assert len(next(steps)) == 2
    ack = Reply(b"", b'{"stream":"KV_a","seq":7}')
    assert len(steps.send([ack, ack])) == 1
    with pytest.raises(StopIteration) as ended:
        steps.throw(refused)
    ((key, error),) = ended.value.value.items()
    assert (key, type(error), error.__cause__) == ("c", OutcomeUnknown, refused)

    steps = bucket.put_many(writes)
    next(steps)
    with pytest.raises(NotSent):
        steps.throw(refused)


def test_a_batch_that_was_sent_in_part_does_not_raise_not_sent() -> None:
    def steps() -> Steps[None]:
        yield Pause(0)

    rest = begun(steps())
    next(rest)
    with pytest.raises(OutcomeUnknown, match="Only a part"):
        rest.throw(NotSent("the circuit is open"))


# Publications --------------------------------------------------------------------------------

LANE = Lane("writes", 2)
HEADERS = [b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\n\r\n"]
PUBLICATIONS = Publications(LANE, b"S", [b"s.a", b"s.b", b"s.c"], [b"1", b"22", b""], HEADERS)
REQUESTS = [
    Request(LANE, "s.a", b"1", HEADERS[0]),
    Request(LANE, "s.b", b"22", HEADERS[1]),
    Request(LANE, "s.c", b"", HEADERS[2]),
]


def parts(requests: Sequence[Request]) -> list[tuple[object, ...]]:
    return [(each.lane, each.subject, each.payload, each.header) for each in requests]


def test_publications_are_requests() -> None:
    assert parts(PUBLICATIONS) == parts(REQUESTS)
    assert parts([PUBLICATIONS[-1]]) == parts(REQUESTS[2:])
    assert len(PUBLICATIONS) == 3
    with pytest.raises(IndexError):
        PUBLICATIONS[3]


def test_a_slice_of_publications_is_publications() -> None:
    part = PUBLICATIONS[1:]
    assert type(part) is Publications
    assert parts(part) == parts(REQUESTS[1:])
    assert (part.lane, part.stream) == (LANE, b"S")
    assert (PUBLICATIONS.max_size, part.max_size) == (len(HEADERS[0]) + 2, len(HEADERS[1]) + 2)
