"""Reads and writes of a bucket whose replicas may lag."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.copies import Bounds, Copies
from django_nats.client.kv.entry import Entry, Write
from django_nats.client.protocol.steps import Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.exceptions import (
    BucketFull,
    WrongRevision,
)
from tests.support.answers import (
    MISSING,
    NO_MESSAGE,
    WRITE,
    Session,
    ack,
    answer_all,
    batch,
    document,
    finish,
    from_leader,
    from_leader_with,
    opened,
    refusal,
    stored,
    stream_document,
    stream_info,
)


@pytest.mark.parametrize("announced", [ack(12), refusal(10077)], ids=["announced", "no room"])
@pytest.mark.parametrize("many", [False, True], ids=["put", "put_many"])
def test_a_value_purged_by_a_refused_write_is_not_read_from_a_replica(
    announced: Reply, many: bool
) -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    purged = [document({"purged": 1})]
    if many:
        finish(bucket.put_many({":1:k": WRITE}), [refusal(10077)], purged, [announced])
    else:
        with pytest.raises(BucketFull):
            finish(bucket.put(":1:k", WRITE), refusal(10077), purged, [announced])
    entry, _ = finish(bucket.get(":1:k"), stored(sequence=8), NO_MESSAGE)
    assert entry is None


def test_many_own_writes_through_an_api_prefix_are_not_read_from_a_replica_that_lags() -> None:
    bucket = opened(replicas=3, api_prefix="$JS.hub.API")
    finish(bucket.put_many({":1:k": WRITE}), [8])
    entry, _ = finish(bucket.get(":1:k"), stored(7), from_leader(8))
    assert entry is not None
    assert entry.revision == 8
    finish(bucket.delete_many([":1:k"]), [9])
    entry, _ = finish(bucket.get(":1:k"), stored(8), NO_MESSAGE)
    assert entry is None


def test_the_leader_is_asked_if_a_replica_lags_behind_an_own_write() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    for stale in (stored(7), MISSING):
        entry, asked = finish(bucket.get(":1:k"), stale, from_leader(8))
        assert entry.revision == 8
        assert asked[1].subject == b"$JS.API.STREAM.MSG.GET.KV_b"
    # Replies of the leader are recorded too: the replica may lag behind them.
    assert finish(bucket.get(":1:k"), stored(7), from_leader(9))[0].revision == 9
    assert finish(bucket.get(":1:k"), stored(8), from_leader(9))[0].revision == 9
    assert finish(bucket.get(":1:k"), stored(9))[0].revision == 9


def test_a_key_missing_on_the_leader_is_read_from_replicas_again() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    assert finish(bucket.get(":1:k"), MISSING, NO_MESSAGE)[0] is None
    assert finish(bucket.get(":1:k"), MISSING)[0] is None


def test_a_cleared_value_is_not_read_from_a_replica() -> None:
    bucket = opened(replicas=3)
    finish(bucket.clear(), document({"success": True, "purged": 5}), ack(9))
    assert finish(bucket.get(":1:k"), stored(7), NO_MESSAGE)[0] is None


def test_the_leader_is_asked_before_a_change_treats_a_key_as_missing() -> None:
    bucket_with_replicas, tombstone = opened(replicas=3), ack(9)
    assert (
        finish(bucket_with_replicas.delete(":1:k"), MISSING, from_leader(8), tombstone)[0] is True
    )
    assert finish(bucket_with_replicas.delete(":1:j"), MISSING, NO_MESSAGE)[0] is False

    def decide(entry: Entry | None) -> Steps[tuple[Write | None, bool]]:
        return None, entry is not None
        yield

    assert finish(opened(replicas=3).change(":1:k", decide), MISSING, from_leader(8))[0] is True
    assert finish(opened().change(":1:k", decide), MISSING)[0] is False


def test_a_recreated_stream_is_not_compared_with_writes_to_the_old_one() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    answer_all(bucket.stream.opening.open(), stream_info(bucket.config))
    assert finish(bucket.get(":1:k"), stored(1))[0].revision == 1


def test_a_change_raises_after_a_thousand_conflicts() -> None:
    def decide(entry: Entry | None) -> Steps[tuple[Write | None, None]]:
        return WRITE, None
        yield

    answers = [stored(7), refusal(10071)] * 1000
    with pytest.raises(WrongRevision, match="1000 times"):
        finish(opened().change(":1:k", decide), *answers)


@pytest.mark.parametrize("sequence", [8, 9])
def test_a_replica_that_has_the_own_write_is_read(sequence: int) -> None:
    bucket = opened(replicas=3)
    finish(bucket.put(":1:k", WRITE), ack(8))
    assert finish(bucket.get(":1:k"), stored(sequence))[0].revision == sequence
    assert finish(bucket.get(":1:other"), MISSING)[0] is None


def test_only_stale_keys_of_get_many_are_read_from_the_leader() -> None:
    bucket = opened(replicas=3)
    finish(bucket.put_many({":1:k": WRITE, ":1:j": WRITE}), [ack(8), ack(9)])
    found, asked = finish(
        bucket.get_many([":1:k", ":1:j"]), [batch(stored(7), stored(9, "=.1.j"))], [from_leader(8)]
    )
    assert {key: entry.revision for key, entry in found.items()} == {":1:k": 8, ":1:j": 9}
    assert len(asked) == 2


def second_alias(first: Bucket, copies: list[Copies]) -> Bucket:
    """Return a bucket for the same stream that is not open, and whose settings ask for no replicas.

    Only the server says that the stream has replicas.
    """
    config = BucketConfig("b", request_timeout=60.0)
    return Bucket(config, Session(), first.stream.recent, copies)


def next_after_opening(steps: Steps[Any], first: Bucket) -> Any:
    """Return what an operation asks for after it has opened the stream."""
    effect = next(steps)
    while isinstance(effect, Request) and effect.subject == b"$JS.API.STREAM.INFO.KV_b":
        effect = steps.send(document(stream_document(first.config, last_seq=8)))
    return effect


def test_the_first_batch_of_an_alias_is_compared_with_the_own_writes_of_another() -> None:
    first = opened(replicas=3)
    finish(first.delete(":1:k"), stored(7), ack(8))
    second = second_alias(first, [])
    steps = second.get_payloads([":1:k"])
    next_after_opening(steps, first)
    (again,) = steps.send([batch(stored(7))])
    assert again.subject == b"$JS.API.STREAM.MSG.GET.KV_b"


@pytest.mark.parametrize("reached", [8, 7])
def test_a_value_read_in_a_run_is_asked_of_the_leader_if_the_replica_is_behind(
    reached: int,
) -> None:
    """A run is read without a look at sequences."""
    bucket = opened(replicas=1)
    finish(bucket.put(":1:k", WRITE), ack(8))
    steps = bucket.get_payloads([":1:k", ":1:j"])
    (request,) = next(steps)
    for key in "kj":
        request.reader.taken[f"$KV.b.=.1.{key}"] = (b"old", "json")
    end = f"NATS/1.0 204 EOB\r\nNats-UpTo-Sequence: {reached}\r\n\r\n".encode()
    answers = [[[Reply(end, b"")]]] if reached == 8 else [[[Reply(end, b"")]], [from_leader(8)]]
    for answer in answers[:-1]:
        (again,) = steps.send(answer)
        assert again.subject == b"$JS.API.STREAM.MSG.GET.KV_b"
    with pytest.raises(StopIteration) as ended:
        steps.send(answers[-1])
    expected = b"old" if reached == 8 else b"value"
    assert ended.value.value == {":1:k": (expected, "json"), ":1:j": (b"old", "json")}


@pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
def test_the_first_copy_of_an_alias_is_not_read_from_a_replica(many: bool) -> None:
    first = opened(replicas=3)
    second = second_alias(first, [Copies(Bounds(), lambda key: True)])
    steps = second.get_many([":1:k"]) if many else second.get(":1:k")
    effect = next_after_opening(steps, first)
    request = effect[0] if many else effect
    assert request.subject == b"$JS.API.STREAM.MSG.GET.KV_b"


def test_a_deleted_value_is_not_read_from_a_replica() -> None:
    bucket = opened(replicas=3)
    finish(bucket.delete(":1:k"), stored(7), ack(8))
    assert (
        finish(bucket.get(":1:k"), stored(7), from_leader_with(8, "KV-Operation: PURGE"))[0] is None
    )


def test_own_writes_are_recorded_whatever_is_known_of_replicas() -> None:
    bucket = opened(replicas=1)
    finish(bucket.put(":1:k", WRITE), ack(8))
    for answer in (stored(7), MISSING):
        assert finish(bucket.get(":1:k"), answer, from_leader(8))[0].revision == 8


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_latest_message_is_the_leaders(replicas: int) -> None:
    bucket = opened(replicas=replicas)
    answers = [from_leader(9)] if replicas == 3 else [stored(9)]
    (sequence, entry), asked = finish(bucket.latest(":1:k"), *answers)
    assert (sequence, entry and entry.payload) == (9, b"value")
    assert [b".MSG.GET." in each.subject for each in asked] == [replicas == 3]


def test_a_tombstone_has_a_sequence_and_no_entry() -> None:
    bucket = opened(replicas=3)
    tombstone = from_leader_with(9, "KV-Operation: PURGE")
    assert finish(bucket.latest(":1:k"), tombstone)[0] == (9, None)
    assert finish(bucket.latest(":1:k"), NO_MESSAGE)[0] == (0, None)


@pytest.mark.parametrize("sequence", [0, 9])
def test_a_value_is_put_at_a_sequence_or_not_at_all(sequence: int) -> None:
    bucket = opened(replicas=3)
    revision, (asked,) = finish(bucket.put_at(":1:k", WRITE, sequence), ack(12))
    assert revision == 12
    assert f"Nats-Expected-Last-Subject-Sequence: {sequence}\r\n".encode() in asked.header
    assert finish(bucket.put_at(":1:k", WRITE, sequence), refusal(10071))[0] is None
