"""Writes of many keys: the messages that are sent together, and the effect of the answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_nats.client.kv import full
from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.copies import Bounds, Copies
from django_nats.client.kv.copies import monotonic as copies_clock
from django_nats.client.kv.entry import EVERYTHING, Write
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Publications, Request
from django_nats.exceptions import NatsError, OutcomeUnknown, ValueTooLarge
from tests.support.answers import WRITE, ack, document, finish, opened, refusal

MOST = 300

plain_keys = st.text("ab.-_/:", min_size=1, max_size=5).map(":1:x{}x".format)
keys = st.one_of(plain_keys, plain_keys, plain_keys, plain_keys) | st.sampled_from(
    [":1:ü", ":1:a b", "", ":", ":1:" + "long" * 400, ":1:x\ny"]
)
writes = st.builds(
    Write,
    st.binary(max_size=8) | st.sampled_from([b"", b"x", b"5", b"x" * MOST]),
    st.sampled_from(["pickle", "int", None]),
    st.sampled_from([None, 0.5, 300, 300.0]),
    st.sampled_from([None, None, 1.9e9]),
)


def small() -> Bucket:
    return opened(max_value_size=MOST)


def messages(requests: Iterable[Request]) -> list[tuple[bytes, bytes, bytes]]:
    return [(each.subject, each.payload, each.header) for each in requests]


# What is sent --------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, writes, min_size=1, max_size=6))
def test_many_values_are_published_as_each_alone_is(values: Mapping[str, Write]) -> None:
    expected: list[Request] = []
    too_large: list[str] = []
    for key, write in values.items():
        put = small()._writer.store(key, write)
        try:
            expected.append(next(put))
        except ValueTooLarge:
            too_large.append(key)
    answers = [list(range(1, len(expected) + 1))] if expected else []
    failed, asked = finish(small()._writer.store_many(values), *answers)
    assert messages(each for sent in asked for each in sent) == messages(expected)
    assert list(failed) == too_large


@settings(max_examples=200, deadline=None)
@given(st.lists(keys, min_size=1, max_size=6))
def test_many_keys_are_deleted_as_each_alone_is(deleted: list[str]) -> None:
    expected = []
    for key in dict.fromkeys(deleted):
        subject = small()._subjects.of(key)
        expected.append(small()._tombstones.request(subject, key))
    assert messages(next(small().delete_many(deleted))) == messages(expected)


def test_values_of_plain_keys_need_no_request_for_each() -> None:
    for sent in (
        next(opened().put_many({":1:a": WRITE, ":1:b": WRITE})),
        next(opened().delete_many([":1:a", ":1:b"])),
    ):
        assert type(sent) is Publications
        assert (sent.stream, sent.lane.name) == (b"KV_b", "writes to the bucket b")
        assert len({id(header) for header in sent.headers}) == 1


def test_the_largest_value_that_fits_is_sent_beside_a_longer_header() -> None:
    """Neither is too large, although the longest header and payload together would be."""
    room = MOST - len(Write(b"", None, None).header)
    values = {":1:a": Write(b"x" * room, None, None), ":1:b": Write(b"x", "pickle", 300.0)}
    failed, (sent,) = finish(small().put_many(values), [5, 6])
    assert failed == {}
    assert messages(sent) == messages([next(small().put(key, values[key])) for key in values])


def test_nothing_is_sent_for_no_keys() -> None:
    assert finish(opened().put_many({})) == ({}, [])
    assert finish(opened().delete_many([])) == ({}, [])
    too_large = {":1:a": Write(b"x" * MOST, None, None)}
    failed, (tombstones,) = finish(small().put_many(too_large), [5])
    assert list(failed) == [":1:a"]
    assert tombstones[0].payload == b""


def test_a_key_with_a_hash_keeps_its_name_in_a_header() -> None:
    key = ":1:" + "long" * 400
    for sent in (
        next(opened().put_many({key: WRITE, ":1:b": WRITE})),
        next(opened().delete_many([key])),
    ):
        assert wire.field(sent[0].header, wire.KEY_HEADER) == wire.quote_key(key)


def test_more_messages_than_fit_in_a_write_are_sent_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_nats.client.streams.requests.MAX_PIPELINE", 3)
    values = {f":1:{number}": Write(b"%d" % number, "int", None) for number in range(8)}
    failed, asked = finish(opened().put_many(values), [1, 2, 3], [4, OutcomeUnknown(), 6], [7, 8])
    assert list(map(len, asked)) == [3, 3, 2]
    assert list(map(type, asked)) == [Publications] * 3
    assert messages(each for sent in asked for each in sent) == messages(
        next(opened().put(key, write)) for key, write in values.items()
    )
    assert list(failed) == [":1:4"]


def test_each_write_of_a_large_batch_copies_only_its_own_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the time would grow with the square of the number of messages."""
    made: list[int] = []
    make = Publications.__init__

    def count(self: Publications, *parts: Any) -> None:
        make(self, *parts)
        made.append(len(self))

    monkeypatch.setattr(Publications, "__init__", count)
    monkeypatch.setattr("django_nats.client.streams.requests.MAX_PIPELINE", 3)
    values = {f":1:{number}": WRITE for number in range(8)}
    finish(opened().put_many(values), [1, 2, 3], [4, 5, 6], [7, 8])
    assert made == [8, 3, 3, 2]


# The effect of the answers -------------------------------------------------------------------

VALUES = dict.fromkeys([":1:a", ":1:b", ":1:c", ":1:d", ":1:e"], WRITE)
ANSWERS: list[Any] = [8, ack(9), refusal(10100), OutcomeUnknown("lost"), 12]


OPERATIONS = ["put_many", "delete_many"]


def outcome(operation: str, bucket: Bucket) -> dict[str, NatsError]:
    """Return the failures of an operation on VALUES that gets ANSWERS."""
    # A put deletes the key whose write was refused.
    others = [[13]] if operation == "put_many" else []
    failed, _ = finish(getattr(bucket, operation)(VALUES), list(ANSWERS), *others)
    return dict(failed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_key_fails_for_its_own_reason(operation: str) -> None:
    failed = outcome(operation, opened())
    assert [(key, type(error).__name__) for key, error in failed.items()] == [
        (":1:c", "ServerError"),
        (":1:d", "OutcomeUnknown"),
    ]


def test_an_acknowledgement_by_another_stream_is_a_failure() -> None:
    other = document({"stream": "KV_c", "seq": 5})
    failed, _ = finish(opened().delete_many([":1:a", ":1:b"]), [5, other])
    assert "another stream" in str(failed[":1:b"])


@pytest.mark.parametrize("replicas", [1, 3])
def test_own_writes_of_a_batch_are_recorded(replicas: int) -> None:
    bucket = opened(replicas=replicas)
    finish(bucket.delete_many(VALUES), list(ANSWERS))
    recent = bucket.stream.recent
    assert recent.written() == [b"$KV.b.=.1.a", b"$KV.b.=.1.b", b"$KV.b.=.1.e"]
    assert recent.newest == 12


@pytest.mark.parametrize("operation", OPERATIONS)
def test_copies_are_made_of_acknowledged_values(operation: str) -> None:
    bucket = opened()
    kept = Copies(Bounds(), lambda key: key != ":1:b")
    kept.opened(0)
    kept.proven(copies_clock() + 100, EVERYTHING)
    bucket._near_caches.copies = [kept]
    finish(bucket.put_many(VALUES), [1, 2, 3, 4, 5])
    outcome(operation, bucket)
    found = {key: kept.find(key) for key in VALUES}
    revisions = {key: copy.revision for key, copy in found.items() if copy is not None}
    assert revisions == ({":1:a": 8, ":1:e": 12} if operation == "put_many" else {})
    assert kept._attempts == {}


def test_a_batch_that_is_stored_shows_that_there_is_room(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "_QUIET_S", 0.0)
    bucket = opened()
    bucket._fullness.is_full = True
    with caplog.at_level(logging.WARNING, "django_nats"):
        finish(bucket.delete_many([":1:a"]), [7])
        assert caplog.messages == []
        finish(bucket.put_many(VALUES), [8, 9, 10, 11, 12])
        finish(bucket.put_many(VALUES), [13, 14, 15, 16, 17])
    assert caplog.messages == ["The bucket b takes values again"]
