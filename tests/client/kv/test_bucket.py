"""The bucket's operations, run as steps on bytes or, if necessary, on a server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.entry import Entry, Write
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import (
    InvalidKey,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    Unavailable,
)
from tests.conftest import MakeCache
from tests.support.answers import (
    HOUR,
    MISSING,
    WRITE,
    Clock,
    ack,
    batch,
    document,
    finish,
    opened,
    refusal,
    run_until_error,
    stamp,
    stored,
    stream_document,
    stream_info,
)

# Many at once --------------------------------------------------------------------------------


def requested_subjects(asked: Sequence[Any]) -> list[list[str]]:
    """Return the subjects in each request of a pipelined batch get."""
    return [json.loads(request.payload)["multi_last"] for request in asked[0]]


@pytest.mark.parametrize(
    ("keys", "sizes"), [(1, [1]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])]
)
def test_get_many_asks_for_as_many_keys_as_the_server_accepts(keys: int, sizes: list[int]) -> None:
    names = [f":1:{number}" for number in range(keys)]
    found, asked = finish(opened().get_many(names), [batch()] * len(sizes))
    assert found == {}
    assert [len(each) for each in requested_subjects(asked)] == sizes
    assert list(chain(*requested_subjects(asked))) == [
        f"$KV.b.=.1.{number}" for number in range(keys)
    ]


@pytest.mark.parametrize("max_payload", [4096, 64 * 1024, 1024 * 1024])
def test_no_request_is_larger_than_max_payload(max_payload: int) -> None:
    names = [f":1:{number:0900}" for number in range(1000)]
    steps = opened(max_payload).get_many(names)
    requests = next(steps)
    assert len(requests) > 1
    assert max(len(request.payload) for request in requests) < max_payload / 2
    assert sum(len(each) for each in requested_subjects([requests])) == 1000


def test_keys_of_a_truncated_batch_are_requested_again() -> None:
    names = [":1:a", ":1:b", ":1:c", ":1:missing"]
    found, asked = finish(
        opened().get_many(names),
        [batch(stored(1, "=.1.a"), pending=2)],
        [batch(stored(2, "=.1.b"), pending=1)],
        [batch(stored(3, "=.1.c"), pending=0)],
    )
    assert {key: entry.revision for key, entry in found.items()} == {
        ":1:a": 1,
        ":1:b": 2,
        ":1:c": 3,
    }
    assert [len(requested_subjects([each])[0]) for each in asked] == [4, 3, 2]


def test_get_many_ends_if_the_server_returns_nothing() -> None:
    found, asked = finish(opened().get_many([":1:a"]), [batch(pending=1)])
    assert found == {}
    assert len(asked) == 1


def test_get_many_of_missing_keys_returns_an_empty_dict() -> None:
    assert finish(opened().get_many([":1:a", ":1:b"]), [[MISSING]])[0] == {}


def test_get_many_without_keys_sends_no_request() -> None:
    assert finish(opened().get_many([])) == ({}, [])


def test_get_many_raises_if_one_batch_fails() -> None:
    names = [f":1:{number}" for number in range(1025)]
    with pytest.raises(OutcomeUnknown):
        finish(opened().get_many(names), [batch(), OutcomeUnknown()])


def test_a_hundred_large_values_are_stored_and_read_together(make_cache: MakeCache) -> None:
    cache = make_cache()
    values = {f"key-{number}": b"%d" % number * 300_000 for number in range(100, 200)}
    assert cache.set_many(values) == []
    assert cache.get_many([*values, "missing"]) == values


def test_more_keys_than_fit_in_a_request_are_read_and_deleted(make_cache: MakeCache) -> None:
    cache = make_cache()
    values = {f"key-{number}": number for number in range(2500)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    assert cache.get_many([f"{key}?" for key in values]) == {}
    cache.delete_many(values)
    assert cache.get_many(values) == {}


def test_large_writes_are_pipelined_in_portions() -> None:
    large = os.urandom(1_000_000)
    writes = {f":1:{number}": Write(large, None, None) for number in range(40)}
    steps = opened(2_000_000, max_value_size=2_000_000).put_many(writes)
    portion = next(steps)
    assert 1 < len(portion) < 40
    assert sum(len(request.payload) for request in portion) < 18 * 1024 * 1024
    failed, asked = finish(resume(steps, portion), *answers_for(portion, 40))
    assert failed == {}
    assert sum(map(len, asked)) == 40


def resume(steps: Steps[Any], first: Any) -> Steps[Any]:
    """Continue an operation whose first effect has already been taken."""
    answer = yield first
    while True:
        try:
            effect = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield effect


def answers_for(portion: list[Request], total: int) -> list[list[Reply]]:
    size = len(portion)
    return [[ack(1)] * min(size, total - start) for start in range(0, total, size)]


def test_put_many_returns_failures_by_key() -> None:
    writes = {":1:a": WRITE, ":1:b": WRITE, ":1:c": Write(b"x" * 2_000_000, None, None)}
    purged = [document({"purged": 0})]
    failed, asked = finish(opened().put_many(writes), [ack(1), refusal(10077)], purged, [ack(2)])
    assert {key: type(error).__name__ for key, error in failed.items()} == {
        ":1:b": "BucketFull",
        ":1:c": "ValueTooLarge",
    }
    assert len(asked[0]) == 2


class CountedKey(str):
    """A key that counts its comparisons with other keys."""

    count = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedKey.count += 1
        return super().__eq__(other)


def test_discarding_many_keys_does_not_compare_each_with_all_others() -> None:
    keys = [CountedKey(f":1:{number}") for number in range(200)]
    purged = [document({"purged": 0})] * len(keys)
    CountedKey.count = 0
    failed, _ = finish(
        opened().put_many(dict.fromkeys(keys, WRITE)), [refusal(10077)] * len(keys), purged
    )
    assert len(failed) == len(keys)
    assert CountedKey.count < 10 * len(keys)


NO_RESPONDERS = Reply(b"NATS/1.0 503\r\n\r\n", b"")


@pytest.mark.parametrize(
    "answers", [[OutcomeUnknown()], [NotSent()], [NO_RESPONDERS, refusal(10008)]], ids=str
)
def test_the_old_value_is_not_deleted_unless_the_server_refused_the_write(
    clock: Clock, answers: list[Any]
) -> None:
    error, (write, *others) = run_until_error(clock, opened().put(":1:k", WRITE), *answers)
    assert isinstance(error, Unavailable)
    assert write.payload == WRITE.payload
    assert {each.subject for each in others} <= {b"$JS.API.STREAM.INFO.KV_b"}


def test_put_many_deletes_no_old_value_unless_the_server_refused_the_write() -> None:
    writes = {":1:a": WRITE, ":1:b": WRITE}
    failed, _ = finish(opened().put_many(writes), [ack(1), OutcomeUnknown()])
    assert list(failed) == [":1:b"]


# Deleting ------------------------------------------------------------------------------------


def test_clear_purges_the_stream_and_announces_it() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    _, (purge, marker) = finish(bucket.clear(), document({"success": True, "purged": 5}), ack(9))
    assert (purge.subject, purge.payload) == (b"$JS.API.STREAM.PURGE.KV_b", b"")
    assert marker.subject == b"$KV.b.=clear"
    assert wire.is_tombstone(marker.header)
    assert wire.field(marker.header, "Nats-TTL") == "60"
    # Replies of replicas are no longer compared with writes that were purged.
    assert finish(bucket.get(":1:k"), MISSING)[0] is None


@pytest.mark.usefixtures("clock")
def test_a_clear_is_repeated_until_both_parts_are_acknowledged() -> None:
    purged = document({"success": True, "purged": 5})
    bucket = opened(request_timeout=5)
    lost = [OutcomeUnknown(), NotSent(), purged, NotSent(), NoLeader(), ack(9)]
    _, asked = finish(bucket.clear(), *lost)
    assert [b"PURGE" in request.subject for request in asked] == [True] * 3 + [False] * 3


def test_a_clear_that_was_not_sent_is_not_repeated() -> None:
    with pytest.raises(NotSent):
        finish(opened(request_timeout=5).clear(), NotSent())


def test_a_clear_that_was_not_announced_raises_outcome_unknown() -> None:
    bucket = opened(request_timeout=-1)
    with pytest.raises(OutcomeUnknown, match="Only a part"):
        finish(bucket.clear(), document({"success": True, "purged": 5}), NotSent())


def test_a_delete_stores_a_tombstone_over_the_revision_that_was_read() -> None:
    deleted, (_, tombstone) = finish(opened().delete(":1:k"), stored(7), ack(8))
    assert deleted is True
    assert tombstone.payload == b""
    assert wire.is_tombstone(tombstone.header)
    for name, value in {
        "Nats-Rollup": "sub",
        "Nats-TTL": "60",
        "Nats-Expected-Last-Subject-Sequence": "7",
    }.items():
        assert wire.field(tombstone.header, name) == value
    assert finish(opened().delete(":1:k"), MISSING)[0] is False
    lost, asked = finish(opened().delete(":1:k"), stored(7), refusal(10071), MISSING)
    assert lost is False
    assert len(asked) == 3


# Time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [-HOUR, 0, HOUR])
def test_values_expire_by_the_servers_clock(clock: float) -> None:
    bucket = opened(clock=clock)
    now = time() + clock
    assert bucket.clock.now() == pytest.approx(now, abs=10)
    header = "Django-Nats: json;ms=61000\r\n"
    fresh = finish(bucket.get(":1:k"), stored(7, header=header, at=now - 1))[0]
    assert fresh.expires == pytest.approx(now + 60, abs=0.1)
    assert finish(bucket.get(":1:k"), stored(7, header=header, at=now - 62))[0] is None


def test_a_slow_answer_does_not_worsen_the_estimate_of_a_quick_one(clock: Clock) -> None:
    bucket = opened()
    before = bucket.clock.now()

    def take_slow_answer(ahead: float) -> None:
        """Take an answer that came two seconds after the question."""
        answer = document(stream_document(bucket.config, ts=stamp(before + ahead)))
        bucket.clock.note_answer(answer, clock.now - 2)

    take_slow_answer(-0.1)
    assert bucket.clock.now() == before
    # A slow answer that contradicts the estimate corrects it.
    take_slow_answer(30)
    assert bucket.clock.now() == pytest.approx(before + 31, abs=0.001)


@pytest.mark.parametrize("operation", ["get", "get_payload", "get_many", "get_payloads"])
def test_the_clock_is_asked_for_again_before_an_operation(operation: str) -> None:
    """A process that reads only batches would otherwise never notice that the clock has jumped."""
    bucket = opened()
    bucket.clock.due = 0
    many = operation in ("get_many", "get_payloads")
    steps = getattr(bucket, operation)([":1:k"] if many else ":1:k")
    effect = next(steps)
    assert effect.subject == b"$JS.API.STREAM.INFO.KV_b"
    while isinstance(effect, Request) and effect.subject == b"$JS.API.STREAM.INFO.KV_b":
        effect = steps.send(stream_info(bucket.config, HOUR))  # twice after a slow answer
    with pytest.raises(StopIteration):
        steps.send([batch()] if many else MISSING)
    assert bucket.clock.now() == pytest.approx(time() + HOUR, abs=60)


def test_only_one_operation_asks_for_the_clock() -> None:
    bucket = opened()
    bucket.clock.due = 0
    first, second = bucket.get(":1:k"), bucket.get(":1:k")
    assert next(first).subject == b"$JS.API.STREAM.INFO.KV_b"
    assert next(second).subject.startswith(b"$JS.API.DIRECT.GET.KV_b")


@pytest.mark.parametrize("info", [OutcomeUnknown(), refusal(10008)], ids=str)
def test_an_operation_goes_on_if_the_request_for_the_time_fails(info: object) -> None:
    bucket = opened()
    bucket.clock.due = 0
    entry, _ = finish(bucket.get(":1:k"), info, stored(7))
    assert entry.revision == 7


# Other clients' values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "format", "lifetime"),
    [
        ("", None, None),
        ("Nats-TTL: 60\r\n", None, 60),
        ("Nats-TTL: never\r\n", None, None),
        ("Nats-TTL: 1h\r\n", None, None),
        (f"Nats-TTL: {'9' * 12}\r\n", None, wire.MAX_TTL_SECONDS),
        (f"Nats-TTL: {'9' * 5000}\r\n", None, None),
        ("Nats-TTL: ²\r\n", None, None),
        ("Django-Nats: json\r\n", "json", None),
        ("Django-Nats: json;ms=60000\r\nNats-TTL: 90\r\n", "json", 60),
        ("Django-Nats: ;ms=60000\r\n", None, 60),
        (f"Django-Nats: json;ms={'9' * 16}\r\n", "json", wire.MAX_TTL_SECONDS),
        (f"Django-Nats: json;ms={'9' * 5000}\r\n", "?", None),
        (f"Django-Nats: json;ms=-{'9' * 400}\r\n", "?", None),
        ("Django-Nats: json;ms=soon\r\n", "?", None),
        ("Django-Nats: json;at=1000\r\n", "json", "gone"),
    ],
)
def test_headers_give_format_and_expiry(header: str, format: str | None, lifetime: object) -> None:
    now = time()
    entry, _ = finish(opened().get(":1:k"), stored(7, header=header, at=now))
    if lifetime == "gone":
        assert entry is None
        return
    assert entry.format == format
    if lifetime is None:
        assert entry.expires is None
    else:
        assert entry.expires == pytest.approx(now + lifetime, abs=0.01)


@given(st.binary(max_size=60).filter(lambda raw: b"\r" not in raw and b"\n" not in raw))
def test_reading_any_header_does_not_raise(raw: bytes) -> None:
    reply = stored(7)
    header = reply.header.replace(b"Django-Nats: json", b"Django-Nats: " + raw)
    entry, _ = finish(opened().get(":1:k"), Reply(header, b"value"))
    assert entry is None or isinstance(entry, Entry)


def test_a_write_has_headers_for_format_and_timeout() -> None:
    formats: list[tuple[Write, str | None, str | None]] = [
        (Write(b"", "json", 1.2345), "json;ms=1234", "2"),
        (Write(b"", "json", None), "json", "never"),
        (Write(b"", None, 0.0001), ";ms=1", "1"),
        (Write(b"", None, None), None, "never"),
    ]
    for write, format, ttl in formats:
        _, (request,) = finish(opened().put(":1:k", write), ack(1))
        assert wire.field(request.header, "Django-Nats") == format
        assert wire.field(request.header, "Nats-TTL") == ttl


Check = Callable[[Bucket], Steps[Any]]


@pytest.mark.parametrize(
    "operation",
    [
        lambda bucket: bucket.get(":1:k"),
        lambda bucket: bucket.put(":1:k", WRITE),
        lambda bucket: bucket.clear(),
    ],
    ids=["get", "put", "clear"],
)
def test_the_stream_is_looked_up_once_per_connection(operation: Check) -> None:
    bucket = opened()
    first = next(operation(bucket))
    assert not first.subject.startswith(b"$JS.API.STREAM.INFO")
    bucket.stream.server.epoch = 2
    again = next(operation(bucket))
    assert again.subject.startswith(b"$JS.API.STREAM.INFO")


def test_a_late_answer_does_not_count_for_the_next_connection() -> None:
    """Until its caller goes on, the connection may be lost, and another one opened."""
    bucket = opened()
    server: Any = bucket.stream.server
    server.epoch = 2
    looking = bucket.stream.opening.ready()
    next(looking)
    server.epoch = 3
    with suppress(StopIteration):
        while True:  # twice, if this machine is too slow to tell the server's time
            looking.send(stream_info(bucket.config))
    assert not bucket.stream.opening.is_ready


def test_a_late_answer_does_not_replace_what_a_later_question_has_found() -> None:
    bucket = opened()
    bucket.stream.opening.reopen()
    early, late = bucket.stream.opening.ready(), bucket.stream.opening.ready()
    next(early)
    next(late)
    for steps, replicas in ((late, 3), (early, 1)):
        found = stream_info(replace(bucket.config, replicas=replicas))
        with suppress(StopIteration):
            while True:
                steps.send(found)
    assert bucket.stream.opening.replicated


def test_keys_longer_than_8192_bytes_are_refused() -> None:
    with pytest.raises(InvalidKey, match="at most 8192"):
        next(opened().put("x" * 8193, WRITE))
    finish(opened().put("x" * 8192, WRITE), ack(1))
