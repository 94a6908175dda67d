"""Operations as generators: what they ask for, and how an iteration is driven piece by piece."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from django_nats.client import exchange
from django_nats.client.bucket import BucketConfig
from django_nats.client.entry import Write
from django_nats.client.exchange import begun
from django_nats.client.kv import Bucket
from django_nats.client.steps import Item, Lane, Pause, Request, Steps, next_item
from django_nats.client.wire import Reply
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


def test_an_iteration_goes_on_from_item_to_item() -> None:
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
    # An item may be anything, None too: only its absence is the end.
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


def test_a_failure_that_is_not_handled_comes_out() -> None:
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


def test_what_is_shown_of_a_request_holds_no_values() -> None:
    lane = Lane("reads of a bucket", 1.0)
    assert repr(Request(lane, "a.subject", b"secret")) == "<Request a.subject 6 B>"
    assert repr(lane) == "<Lane reads of a bucket>"
    lane.fault = "it does not answer"
    assert repr(lane) == "<Lane reads of a bucket down>"


class Known(NamedTuple):
    """What a bucket needs to know of a server it is connected to."""

    epoch: int = 1
    max_payload: int = 1024 * 1024
    server: str = "nats-server"


def test_a_pipeline_that_was_sent_in_part_is_not_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_PIPELINE", 2)
    bucket = Bucket(BucketConfig("a"), Known())
    bucket._opened = 1  # as after a first operation
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


def test_the_rest_of_what_has_begun_is_not_not_sent() -> None:
    def steps() -> Steps[None]:
        yield Pause(0)

    rest = begun(steps())
    next(rest)
    with pytest.raises(OutcomeUnknown, match="Only a part"):
        rest.throw(NotSent("the circuit is open"))
