from __future__ import annotations

from django_nats.client.recent import Recent


def test_nothing_is_stale_before_the_first_write() -> None:
    assert not Recent().is_stale("a", None)
    assert not Recent().is_stale("a", 1)


def test_an_answer_older_than_our_write_is_stale() -> None:
    recent = Recent()
    recent.note("a", 5)
    assert recent.is_stale("a", 4)
    assert recent.is_stale("a", None)
    assert not recent.is_stale("a", 5)
    assert not recent.is_stale("b", 1)


def test_acknowledgements_may_come_out_of_order() -> None:
    recent = Recent()
    recent.note("a", 11)
    recent.note("a", 10)
    assert recent.is_stale("a", 10)


def test_what_was_there_before_a_clear_is_stale() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_cleared(9)
    assert recent.is_stale("a", 5)
    assert recent.is_stale("never written by us", 8)
    assert not recent.is_stale("a", None)
    assert not recent.is_stale("a", 10)


def test_what_the_leader_does_not_have_is_not_asked_for_again() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_missing("a")
    assert not recent.is_stale("a", None)


def test_the_oldest_records_go_and_a_renewed_one_is_not_old() -> None:
    recent = Recent()
    recent.note("first", 1)
    recent.note("second", 2)
    for number in range(9_999):
        recent.note(f"key-{number}", 3 + number)
        recent.note("first", 20_000 + number)
    assert recent.is_stale("first", 20_000)
    assert not recent.is_stale("second", 1)


def test_a_stream_made_anew_counts_from_one_again() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_cleared(9)
    recent.forget()
    assert not recent.is_stale("a", 1)
    assert recent.newest == 0


def test_after_a_purge_nothing_is_no_stale_answer_and_what_was_there_is() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note_purged("a", 9)
    assert recent.is_stale("a", 5)
    assert recent.is_stale("a", 9)
    assert not recent.is_stale("a", None)
    assert not recent.is_stale("a", 10)
    recent.note_missing("a")  # the leader's word does not make the replicas any faster
    assert recent.is_stale("a", 5)
    recent.note("a", 12)
    assert recent.is_stale("a", 11)
    assert recent.is_stale("a", None)


def test_a_purge_alone_is_remembered_too() -> None:
    recent = Recent()
    recent.note_purged("a", 9)
    assert recent.is_stale("a", 9)


def test_what_was_written_is_told_without_what_was_purged() -> None:
    recent = Recent()
    recent.note("a", 5)
    recent.note("b", 6)
    recent.note_purged("b", 7)
    assert recent.written() == ["a"]
