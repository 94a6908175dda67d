"""The record of own writes, by which stale replies of replicas are recognized."""

from __future__ import annotations

from django_nats.client.streams.recent_writes import Recent


def test_no_reply_is_stale_before_the_first_write() -> None:
    assert not Recent().is_stale("a", None)
    assert not Recent().is_stale("a", 1)


def test_a_reply_older_than_an_own_write_is_stale() -> None:
    recent = Recent()
    recent.note("a", 5)
    assert recent.is_stale("a", 4)
    assert recent.is_stale("a", None)
    assert not recent.is_stale("a", 5)
    assert not recent.is_stale("b", 1)


def test_acknowledgements_may_arrive_out_of_order() -> None:
    recent = Recent()
    recent.note("a", 11)
    recent.note("a", 10)
    assert recent.is_stale("a", 10)


def test_a_value_from_before_a_clear_is_stale() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_cleared(9)
    assert recent.is_stale("a", 5)
    assert recent.is_stale("never written by us", 8)
    assert not recent.is_stale("a", None)
    assert not recent.is_stale("a", 10)


def test_a_missing_key_is_not_stale_once_the_leader_says_so() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_missing("a")
    assert not recent.is_stale("a", None)


def test_the_oldest_records_are_dropped_and_renewed_ones_kept() -> None:
    recent = Recent()
    recent.note("first", 1)
    recent.note("second", 2)
    for number in range(9_999):
        recent.note(f"key-{number}", 3 + number)
        recent.note("first", 20_000 + number)
    assert recent.is_stale("first", 20_000)
    assert not recent.is_stale("second", 1)


def test_a_recreated_stream_starts_without_records() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_cleared(9)
    recent.forget()
    assert not recent.is_stale("a", 1)
    assert recent.newest == 0


def test_a_purged_value_is_stale_and_a_missing_key_is_not() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_purged("a", 9)
    assert recent.is_stale("a", 5)
    assert recent.is_stale("a", 9)
    assert not recent.is_stale("a", None)
    assert not recent.is_stale("a", 10)
    recent.note_missing("a")  # the leader's answer does not mean that replicas have caught up
    assert recent.is_stale("a", 5)
    recent.note("a", 12)
    assert recent.is_stale("a", 11)
    assert recent.is_stale("a", None)


def test_a_purge_without_a_write_is_remembered() -> None:
    recent = Recent()
    recent.note_purged("a", 9)
    assert recent.is_stale("a", 9)


def test_written_returns_keys_that_were_not_purged() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note("b", 6)
    recent.note_purged("b", 7)
    assert recent.written() == ["a"]
