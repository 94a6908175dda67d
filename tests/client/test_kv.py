"""The operations as steps, on bytes; what only a server can show is shown on one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from itertools import chain
from time import monotonic, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client import wire
from django_nats.client.entry import Entry, Write
from django_nats.client.kv import Bucket
from django_nats.client.steps import Request, Steps
from django_nats.client.wire import Reply
from django_nats.exceptions import InvalidKey, NoLeader, NotSent, OutcomeUnknown, WrongRevision
from tests.conftest import MakeCache
from tests.support.answers import (
    HOUR,
    MISSING,
    NO_MESSAGE,
    WRITE,
    ack,
    batch,
    document,
    finish,
    leaders,
    leaders_with,
    opened,
    refusal,
    stored,
    stream_info,
)

# Many at once --------------------------------------------------------------------------------


def questions(asked: Sequence[Any]) -> list[list[str]]:
    """The subjects of each question of a pipelined batch get."""
    return [json.loads(request.payload)["multi_last"] for request in asked[0]]


@pytest.mark.parametrize(
    ("keys", "sizes"), [(1, [1]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])]
)
def test_as_many_keys_as_the_server_takes_in_a_question(keys: int, sizes: list[int]) -> None:
    names = [f":1:{number}" for number in range(keys)]
    found, asked = finish(opened().get_many(names), [batch()] * len(sizes))
    assert found == {}
    assert [len(each) for each in questions(asked)] == sizes
    assert list(chain(*questions(asked))) == [f"$KV.b.=.1.{number}" for number in range(keys)]


@pytest.mark.parametrize("max_payload", [4096, 64 * 1024, 1024 * 1024])
def test_no_question_is_larger_than_the_server_takes(max_payload: int) -> None:
    names = [f":1:{number:0900}" for number in range(1000)]
    steps = opened(max_payload).get_many(names)
    requests = next(steps)
    assert len(requests) > 1
    assert max(len(request.payload) for request in requests) < max_payload / 2
    assert sum(len(each) for each in questions([requests])) == 1000


def test_what_the_server_cut_short_is_asked_for_again() -> None:
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
    assert [len(questions([each])[0]) for each in asked] == [4, 3, 2]


def test_a_server_that_gives_nothing_is_not_asked_for_ever() -> None:
    found, asked = finish(opened().get_many([":1:a"]), [batch(pending=1)])
    assert found == {}
    assert len(asked) == 1


def test_nothing_of_many_is_one_404() -> None:
    assert finish(opened().get_many([":1:a", ":1:b"]), [[MISSING]])[0] == {}


def test_no_keys_no_question() -> None:
    assert finish(opened().get_many([])) == ({}, [])


def test_a_failure_of_a_part_is_one_of_the_whole() -> None:
    names = [f":1:{number}" for number in range(1025)]
    with pytest.raises(OutcomeUnknown):
        finish(opened().get_many(names), [batch(), OutcomeUnknown()])


def test_a_hundred_large_values_at_once(make_cache: MakeCache) -> None:
    cache = make_cache()
    values = {f"key-{number}": b"%d" % number * 300_000 for number in range(100, 200)}
    assert cache.set_many(values) == []
    assert cache.get_many([*values, "missing"]) == values


def test_more_keys_than_one_question_takes(make_cache: MakeCache) -> None:
    cache = make_cache()
    values = {f"key-{number}": number for number in range(2500)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    assert cache.get_many([f"{key}?" for key in values]) == {}
    cache.delete_many(values)
    assert cache.get_many(values) == {}


def test_writes_are_pipelined_in_portions() -> None:
    large = os.urandom(1_000_000)
    writes = {f":1:{number}": Write(large, None, None) for number in range(40)}
    steps = opened(2_000_000, max_value_size=2_000_000).put_many(writes)
    portion = next(steps)
    assert 1 < len(portion) < 40
    assert sum(len(request.payload) for request in portion) < 18 * 1024 * 1024
    failed, asked = finish(steps_from(steps, portion), *answers_for(portion, 40))
    assert failed == {}
    assert sum(map(len, asked)) == 40


def steps_from(steps: Steps[Any], first: Any) -> Steps[Any]:
    """An operation that has already asked for something."""
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


def test_failures_among_many_are_told_by_key() -> None:
    writes = {":1:a": WRITE, ":1:b": WRITE, ":1:c": Write(b"x" * 2_000_000, None, None)}
    failed, asked = finish(opened().put_many(writes), [ack(1), refusal(10077)])
    assert {key: type(error).__name__ for key, error in failed.items()} == {
        ":1:b": "BucketFull",
        ":1:c": "ValueTooLarge",
    }
    assert len(asked[0]) == 2


# Replicas ------------------------------------------------------------------------------------


def test_a_replica_that_has_not_seen_our_own_write_is_not_believed() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    for stale in (stored(7), MISSING):
        entry, asked = finish(bucket.get(":1:k"), stale, leaders(8))
        assert entry.revision == 8
        assert asked[1].subject == b"$JS.API.STREAM.MSG.GET.KV_b"
    # Also of what the leader has told: the replica may lag behind that.
    assert finish(bucket.get(":1:k"), stored(7), leaders(9))[0].revision == 9
    assert finish(bucket.get(":1:k"), stored(8), leaders(9))[0].revision == 9
    assert finish(bucket.get(":1:k"), stored(9))[0].revision == 9


def test_a_key_the_leader_does_not_have_is_asked_of_replicas_again() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    assert finish(bucket.get(":1:k"), MISSING, NO_MESSAGE)[0] is None
    assert finish(bucket.get(":1:k"), MISSING)[0] is None


def test_after_our_clear_a_replica_with_the_old_values_is_not_believed() -> None:
    bucket = opened(replicas=3)
    finish(bucket.clear(), document({"success": True, "purged": 5}), ack(9))
    assert finish(bucket.get(":1:k"), stored(7), NO_MESSAGE)[0] is None


def test_that_nothing_is_there_is_for_the_leader_to_say() -> None:
    gone, tombstone = opened(replicas=3), ack(9)
    assert finish(gone.delete(":1:k"), MISSING, leaders(8), tombstone)[0] is True
    assert finish(gone.delete(":1:j"), MISSING, NO_MESSAGE)[0] is False

    def decide(entry: Entry | None) -> Steps[tuple[Write | None, bool]]:
        return None, entry is not None
        yield

    assert finish(opened(replicas=3).change(":1:k", decide), MISSING, leaders(8))[0] is True
    assert finish(opened().change(":1:k", decide), MISSING)[0] is False


def test_a_stream_made_anew_is_not_measured_against_the_old_one() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    finish(bucket.open(), stream_info(bucket.config))
    assert finish(bucket.get(":1:k"), stored(1))[0].revision == 1


def test_a_change_that_never_ends_is_given_up() -> None:
    def decide(entry: Entry | None) -> Steps[tuple[Write | None, None]]:
        return WRITE, None
        yield

    answers = [stored(7), refusal(10071)] * 1000
    with pytest.raises(WrongRevision, match="1000 times"):
        finish(opened().change(":1:k", decide), *answers)


@pytest.mark.parametrize("sequence", [8, 9])
def test_a_replica_that_has_seen_it_is(sequence: int) -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    assert finish(bucket.get(":1:k"), stored(sequence))[0].revision == sequence
    assert finish(bucket.get(":1:other"), MISSING)[0] is None


def test_stale_replies_among_many() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put_many({":1:k": WRITE, ":1:j": WRITE}), [ack(8), ack(9)])
    found, asked = finish(
        bucket.get_many([":1:k", ":1:j"]), [batch(stored(7), stored(9, "=.1.j"))], [leaders(8)]
    )
    assert {key: entry.revision for key, entry in found.items()} == {":1:k": 8, ":1:j": 9}
    assert len(asked) == 2


def test_a_delete_that_a_replica_has_not_seen() -> None:
    bucket = opened(replicas=3)
    finish(bucket.delete(":1:k"), stored(7), ack(8))
    assert finish(bucket.get(":1:k"), stored(7), leaders_with(8, "KV-Operation: PURGE"))[0] is None


def test_a_lone_server_needs_no_record_of_our_writes() -> None:
    bucket = opened(replicas=1)
    finish(bucket.put(":1:k", WRITE), ack(8))
    assert bucket.recent.newest == 0


# Deleting ------------------------------------------------------------------------------------


def test_clear_purges_and_then_says_so() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    _, (purge, marker) = finish(bucket.clear(), document({"success": True, "purged": 5}), ack(9))
    assert (purge.subject, purge.payload) == (b"$JS.API.STREAM.PURGE.KV_b", b"")
    assert marker.subject == b"$KV.b.=clear"
    assert wire.is_tombstone(marker.header)
    assert wire.field(marker.header, "Nats-TTL") == "60"
    # What a replica answers is no longer measured against writes that are gone.
    assert finish(bucket.get(":1:k"), MISSING)[0] is None


def test_a_clear_that_has_begun_goes_on_until_both_parts_are_acknowledged() -> None:
    purged = document({"success": True, "purged": 5})
    bucket = opened(request_timeout=5)
    lost = [OutcomeUnknown(), NotSent(), purged, NotSent(), NoLeader(), ack(9)]
    _, asked = finish(bucket.clear(), *lost)
    assert [b"PURGE" in request.subject for request in asked] == [True] * 3 + [False] * 3


def test_a_clear_that_was_not_sent_is_not_tried_again() -> None:
    with pytest.raises(NotSent):
        finish(opened(request_timeout=5).clear(), NotSent())


def test_a_clear_that_was_not_announced_does_not_count_as_not_sent() -> None:
    bucket = opened(request_timeout=-1)
    with pytest.raises(OutcomeUnknown, match="Only a part"):
        finish(bucket.clear(), document({"success": True, "purged": 5}), NotSent())


def test_a_delete_is_a_tombstone_on_the_revision_that_was_read() -> None:
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
    assert bucket.now() == pytest.approx(now, abs=10)
    header = "Django-Nats: json;ms=61000\r\n"
    fresh = finish(bucket.get(":1:k"), stored(7, header=header, at=now - 1))[0]
    assert fresh.expires == pytest.approx(now + 60, abs=0.1)
    assert finish(bucket.get(":1:k"), stored(7, header=header, at=now - 62))[0] is None


def test_a_slow_answer_does_not_spoil_what_a_quick_one_told() -> None:
    bucket = opened()
    config = bucket.config
    before = bucket.now() - monotonic()
    bucket._set_clock(stream_info(config, -0.1), monotonic() - 2)
    assert bucket.now() - monotonic() == pytest.approx(before, abs=1e-3)
    # But one that rules it out does correct it.
    bucket._set_clock(stream_info(config, 30), monotonic() - 2)
    assert bucket.now() == pytest.approx(time() + 31, abs=0.1)


def test_the_clock_is_asked_for_again_in_the_same_write() -> None:
    bucket = opened()
    bucket._clock_due = 0
    steps = bucket.get(":1:k")
    pair = next(steps)
    assert [request.subject for request in pair] == [
        b"$JS.API.DIRECT.GET.KV_b.$KV.b.=.1.k",
        b"$JS.API.STREAM.INFO.KV_b",
    ]
    with pytest.raises(StopIteration):
        steps.send([MISSING, stream_info(bucket.config, HOUR)])
    assert bucket.now() == pytest.approx(time() + HOUR, abs=60)
    assert isinstance(next(bucket.get(":1:k")), Request)


@pytest.mark.parametrize("info", [OutcomeUnknown(), refusal(10059), refusal(10008)], ids=str)
def test_an_answer_is_good_without_the_time(info: object) -> None:
    bucket = opened()
    bucket._clock_due = 0
    entry, _ = finish(bucket.get(":1:k"), [stored(7), info])
    assert entry.revision == 7


# Other clients' values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "format", "lives"),
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
def test_formats_and_timeouts(header: str, format: str | None, lives: object) -> None:
    now = time()
    entry, _ = finish(opened().get(":1:k"), stored(7, header=header, at=now))
    if lives == "gone":
        assert entry is None
        return
    assert entry.format == format
    if lives is None:
        assert entry.expires is None
    else:
        assert entry.expires == pytest.approx(now + lives, abs=0.01)


@given(st.binary(max_size=60).filter(lambda raw: b"\r" not in raw and b"\n" not in raw))
def test_no_header_that_anybody_can_write_raises(raw: bytes) -> None:
    reply = stored(7)
    header = reply.header.replace(b"Django-Nats: json", b"Django-Nats: " + raw)
    entry, _ = finish(opened().get(":1:k"), Reply(header, b"value"))
    assert entry is None or isinstance(entry, Entry)


def test_the_format_and_the_timeout_of_a_write() -> None:
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
def test_a_bucket_is_looked_for_once_for_each_connection(operation: Check) -> None:
    bucket = opened()
    first = next(operation(bucket))
    assert not first.subject.startswith(b"$JS.API.STREAM.INFO")
    bucket._server.epoch = 2
    again = next(operation(bucket))
    assert again.subject.startswith(b"$JS.API.STREAM.INFO")


def test_keys_are_bounded() -> None:
    with pytest.raises(InvalidKey, match="at most 8192"):
        next(opened().put("x" * 8193, WRITE))
    finish(opened().put("x" * 8192, WRITE), ack(1))
