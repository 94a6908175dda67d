"""A stream that is looked at again, and of which the server does not tell."""

from __future__ import annotations

from itertools import count
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams import facts
from django_nats.exceptions import OutcomeUnknown
from tests.client.streams.test_facts import asks_first, bucket_at, counters_at
from tests.conftest import PATIENT
from tests.support.answers import (
    WRITE,
    Clock,
    ack,
    document,
    finish,
    refusal,
    stored,
    stream_document,
)
from tests.support.reloading import LOGIN, Reloading, account

NO_RESPONDERS = Reply(b"NATS/1.0 503\r\n\r\n", b"")
UNANSWERED: dict[str, Any] = {
    "no answer": OutcomeUnknown("no answer"),
    "no responders": NO_RESPONDERS,
    "no leader": refusal(10008),
    "JetStream is off": refusal(10039),
}
every_failure = pytest.mark.parametrize("failure", UNANSWERED.values(), ids=UNANSWERED)


@every_failure
def test_a_bucket_goes_on_as_it_was(clock: Clock, failure: Any) -> None:
    bucket = bucket_at(clock)
    clock.now += 61
    revision, _ = finish(bucket.put(":1:k", WRITE), failure, ack(5))
    assert revision == 5
    assert bucket.stream.server.suspended == []  # type: ignore[attr-defined]


@every_failure
def test_counters_go_on_as_they_were(clock: Clock, failure: Any) -> None:
    counters = counters_at(clock)
    clock.now += 61
    counted = document({"stream": "b", "seq": 5, "val": "7"})
    total, _ = finish(counters.incr("k", 1), failure, counted)
    assert total == 7
    assert counters.stream.server.suspended == []  # type: ignore[attr-defined]


@every_failure
def test_a_server_that_does_not_tell_is_asked_less_and_less_often(
    clock: Clock, failure: Any
) -> None:
    counters = counters_at(clock)
    clock.now += 61
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        finish(counters.stream.opening.ready(), failure)
        clock.now += pause - 0.1
        assert counters.stream.opening.is_ready
        clock.now += 0.2
        assert not counters.stream.opening.is_ready
    finish(counters.stream.opening.ready(), document(stream_document(counters.config)))
    clock.now += 61
    finish(counters.stream.opening.ready(), failure)
    clock.now += 1.1
    assert not counters.stream.opening.is_ready


def test_a_question_whose_caller_is_cancelled_is_asked_by_another(clock: Clock) -> None:
    bucket = bucket_at(clock)
    clock.now += 2
    bucket.stream.opening._facts._note_update(stored(1))
    steps = bucket.get("k")
    next(steps)
    steps.close()
    clock.now += 1.1
    assert asks_first(bucket.get("k"))


MAPPED = 'enabled, mappings: { "$JS.API.STREAM.INFO.KV_django_cache": "others.info" }'
NOT_SERVED = b'{"error": {"code": 503, "err_code": 10039, "description": "not enabled"}}'


async def test_no_call_fails_while_the_server_does_not_tell_of_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts, "FACTS_S", 0.01)
    monkeypatch.setattr(facts, "_LEAST_FACTS_S", 0.01)
    with Reloading(config=account(), token="") as server:
        other = await nats.connect(server.url, user=LOGIN["USER"], password=LOGIN["PASSWORD"])
        asked = []

        async def refuse(message: Msg) -> None:
            asked.append(message)
            await message.respond(NOT_SERVED)

        await other.subscribe("others.info", cb=refuse)
        await other.flush()
        cache = NatsCache(server.url, {"OPTIONS": {**PATIENT, **LOGIN}})
        await cache.aset("key", 0)
        server.reload(account(MAPPED))
        for number in count():
            await cache.aset("key", number)
            assert await cache.aget("key") == number
            if len(asked) > 3:
                break
        await other.close()
        process.close()
