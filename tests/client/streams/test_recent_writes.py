"""The record of own writes, by which stale replies of replicas are recognized."""

from __future__ import annotations

from django_nats.client.streams.recent_writes import Recent


def test_no_reply_is_stale_before_the_first_write() -> None:
    assert not Recent().is_stale(b"a", None)
    assert not Recent().is_stale(b"a", 1)


def test_a_reply_older_than_an_own_write_is_stale() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    assert recent.is_stale(b"a", 4)
    assert recent.is_stale(b"a", None)
    assert not recent.is_stale(b"a", 5)
    assert not recent.is_stale(b"b", 1)


def test_acknowledgements_may_arrive_out_of_order() -> None:
    recent = Recent()
    recent.note(b"a", 11)
    recent.note(b"a", 10)
    assert recent.is_stale(b"a", 10)


def test_a_value_from_before_a_clear_is_stale() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    recent.note_cleared(9)
    assert recent.is_stale(b"a", 5)
    assert recent.is_stale(b"never written by us", 8)
    assert not recent.is_stale(b"a", None)
    assert not recent.is_stale(b"a", 10)


def test_a_missing_key_is_not_stale_once_the_leader_says_so() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    recent.note_missing(b"a")
    assert not recent.is_stale(b"a", None)


def test_the_oldest_records_are_dropped_and_renewed_ones_kept() -> None:
    recent = Recent()
    recent.note(b"first", 1)
    recent.note(b"second", 2)
    for number in range(9_999):
        recent.note(b"key-%d" % number, 3 + number)
        recent.note(b"first", 20_000 + number)
    assert recent.is_stale(b"first", 20_000)
    assert not recent.is_stale(b"second", 1)


def test_a_recreated_stream_starts_without_records() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    recent.note_cleared(9)
    recent.forget()
    assert not recent.is_stale(b"a", 1)
    assert recent.newest == 0


def test_a_purged_value_is_stale_and_a_missing_key_is_not() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    recent.note_purged(b"a", 9)
    assert recent.is_stale(b"a", 5)
    assert recent.is_stale(b"a", 9)
    assert not recent.is_stale(b"a", None)
    assert not recent.is_stale(b"a", 10)
    recent.note_missing(b"a")  # the leader's answer does not mean that replicas have caught up
    assert recent.is_stale(b"a", 5)
    recent.note(b"a", 12)
    assert recent.is_stale(b"a", 11)
    assert recent.is_stale(b"a", None)


def test_a_purge_without_a_write_is_remembered() -> None:
    recent = Recent()
    recent.note_purged(b"a", 9)
    assert recent.is_stale(b"a", 9)


def test_written_returns_keys_that_were_not_purged() -> None:
    recent = Recent()
    recent.note(b"a", 5)
    recent.note(b"b", 6)
    recent.note_purged(b"b", 7)
    assert recent.written() == [b"a"]


def test_many_writes_are_noted_together() -> None:
    recent = Recent()
    recent.note_many([b"a", b"b"], [5, 6])
    assert recent.newest == 6
    assert recent.is_stale(b"a", 4)
    assert recent.is_stale(b"b", None)
    recent.note_many([b"b", b"a"], [3, 7])  # the acknowledgements of another thread
    assert not recent.is_stale(b"b", 6)
    assert recent.is_stale(b"b", 5)
    assert recent.is_stale(b"a", 6)


def test_an_acknowledgement_from_before_a_purge_does_not_undo_it() -> None:
    recent = Recent()
    recent.note_purged(b"a", 9)
    recent.note(b"a", 5)
    assert recent.is_stale(b"a", 9)


def test_memory_is_bounded() -> None:
    recent = Recent()
    subjects = [b"key-%d" % number for number in range(50_000)]
    recent.note_many(subjects, range(1, 50_001))
    for number, subject in enumerate(subjects):
        recent.note(subject + b"x", 60_000 + number)
    assert 5_000 <= len(recent.written()) <= 10_001


def test_a_replica_that_has_reached_the_last_write_misses_none() -> None:
    recent = Recent()
    assert not recent.may_be_missing(0, 0)
    recent.note(b"a", 5)
    assert recent.may_be_missing(4, 5)
    assert not recent.may_be_missing(5, 5)
    recent.note_purged(b"b", 5)
    assert recent.may_be_missing(5, 5)
    assert not recent.may_be_missing(6, 5)


def test_a_stream_that_was_created_again_starts_without_records() -> None:
    for created, last in (("later", 90), ("then", 4)):
        recent = Recent()
        recent.note_stream("then", 1, 0)
        recent.note(b"a", 5)
        recent.note_stream(created, last, 5)
        assert not recent.is_stale(b"a", 4)


def test_a_write_since_the_stream_was_asked_about_is_kept() -> None:
    recent = Recent()
    recent.note_stream("then", 1, 0)
    recent.note(b"a", 5)
    recent.note_stream("then", 1, 0)
    assert recent.is_stale(b"a", 4)
