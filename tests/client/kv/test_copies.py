"""The in-process copies: which are kept, served and dropped."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client.kv import copies as module
from django_nats.client.kv.copies import OVERHEAD_BYTES, Bounds, Copies
from django_nats.client.kv.entry import EVERYTHING, Entry
from tests.support.answers import Clock

pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures("clock")]


def opened(**bounds: Any) -> Copies:
    copies = Copies(Bounds(**bounds), lambda key: True)
    copies.opened(0)
    copies.proven(module.monotonic(), EVERYTHING)
    return copies


def entry(revision: int, payload: bytes = b"value", expires: float | None = None) -> Entry:
    return Entry(payload, "json", revision, expires)


def read(copies: Copies, key: str, found: Entry | None, clock: float = 0.0) -> None:
    copies.end_read(copies.begin(key, f"${key}"), found, clock)


def write(copies: Copies, key: str, revision: int, payload: bytes | None = b"value") -> None:
    stored = None if payload is None else entry(revision, payload)
    copies.end_write(copies.begin(key, f"${key}"), stored, revision, 0.0)


def revision(copies: Copies, key: str = "a") -> int | None:
    copy = copies.find(key)
    return None if copy is None else copy.revision


class TestServing:
    def test_a_value_that_was_read_or_written_is_served(self) -> None:
        copies = opened()
        assert copies.find("a") is None
        read(copies, "a", entry(1, b"one"))
        write(copies, "b", 2, b"two")
        one, two = copies.find("a"), copies.find("b")
        assert one is not None
        assert two is not None
        assert (one.entry, two.entry) == (entry(1, b"one"), entry(2, b"two"))
        assert (len(copies), copies.hits, copies.misses) == (2, 2, 1)

    def test_a_lower_revision_replaces_a_copy_made_before_its_read(self) -> None:
        """The stream was recreated, and its revisions start again."""
        copies = opened()
        write(copies, "a", 5)
        read(copies, "a", entry(4))
        assert revision(copies) == 4

    def test_concurrent_answers_that_differ_leave_no_copy(self) -> None:
        """Either may be the newer: the stream may have been recreated between them."""
        copies = opened()
        late = copies.begin("a", "$a")
        read(copies, "a", entry(4))
        copies.end_read(late, entry(5), 0.0)
        assert revision(copies) is None
        late = copies.begin("a", "$a")
        read(copies, "a", entry(6))
        copies.end_read(late, entry(5), 0.0)
        assert revision(copies) is None
        read(copies, "a", entry(6))
        assert revision(copies) == 6

    def test_another_answer_drops_a_copy_of_a_different_revision(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        copies.found("$a", 5)
        assert revision(copies) == 5
        copies.found("$a", 4)
        assert revision(copies) is None

    def test_all_copies_can_be_forgotten(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        attempt = copies.begin("b", "$b")
        copies.forget_all()
        copies.end_read(attempt, entry(6), 0.0)
        assert (revision(copies), revision(copies, "b"), copies.bytes) == (None, None, 0)

    def test_a_change_drops_only_older_copies(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        copies.changed("$a", 5)  # the own write
        copies.changed("$a", 4)
        copies.changed("$b", 9)
        assert revision(copies) == 5
        copies.changed("$a", 6)
        assert copies.find("a") is None

    def test_a_read_overtaken_by_a_change_is_not_copied(self) -> None:
        copies = opened()
        attempt = copies.begin("a", "$a")
        copies.changed("$a", 7)
        copies.end_read(attempt, entry(6), 0.0)
        assert copies.find("a") is None
        attempt = copies.begin("a", "$a")
        copies.changed("$a", 8)
        copies.end_read(attempt, entry(8), 0.0)
        assert revision(copies) == 8

    def test_a_write_in_doubt_removes_the_copy_and_invalidates_running_reads(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        before = copies.begin("a", "$a")
        copies.end_in_doubt(copies.begin("a", "$a"))
        assert copies.find("a") is None
        copies.end_read(before, entry(5), 0.0)
        assert copies.find("a") is None
        read(copies, "a", entry(5))
        assert revision(copies) == 5

    def test_a_read_without_an_answer_changes_nothing(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        copies.give_up(copies.begin("a", "$a"))
        assert revision(copies) == 5
        assert not copies._attempts

    def test_a_clear_drops_older_copies_and_invalidates_running_attempts(self) -> None:
        copies = opened()
        write(copies, "a", 5)
        write(copies, "b", 9)
        reading = copies.begin("c", "$c")
        writing = copies.begin("d", "$d")
        copies.cleared(8)
        copies.end_read(reading, entry(4), 0.0)
        copies.end_write(writing, entry(7), 7, 0.0)
        assert [revision(copies, key) for key in "abcd"] == [None, 9, None, None]
        assert copies.bytes == sum(each.size for each in copies._copies.values())

    def test_keys_are_independent(self) -> None:
        copies = opened()
        reading = copies.begin("a", "$a")
        write(copies, "b", 9)
        copies.end_in_doubt(copies.begin("c", "$c"))
        copies.end_read(reading, entry(1), 0.0)
        assert revision(copies) == 1


class TestMisses:
    def test_misses_are_not_kept_by_default(self) -> None:
        copies = opened()
        read(copies, "a", None)
        write(copies, "b", 2, None)
        assert (copies.find("a"), copies.find("b"), len(copies)) == (None, None, 0)

    @pytest.mark.parametrize("deleted", [False, True])
    def test_misses_are_kept_until_a_value_is_stored(self, deleted: bool) -> None:
        copies = opened(misses=True)
        if deleted:
            write(copies, "a", 3, None)
        else:
            read(copies, "a", None)
        found = copies.find("a")
        assert found is not None
        assert found.entry is None
        copies.changed("$a", 4)
        assert copies.find("a") is None

    def test_misses_are_not_kept_after_a_change_during_the_read(self) -> None:
        copies = opened(misses=True)
        attempt = copies.begin("a", "$a")
        copies.changed("$a", 1)
        copies.end_read(attempt, None, 0.0)
        assert copies.find("a") is None

    def test_misses_remove_a_copy_after_a_write_during_the_read(self) -> None:
        copies = opened()
        attempt = copies.begin("a", "$a")
        write(copies, "a", 5)
        copies.end_read(
            attempt, None, 0.0
        )  # another client's delete, not yet delivered by the feed
        assert copies.find("a") is None

    def test_misses_invalidate_running_reads_and_writes(self) -> None:
        copies = opened(misses=True)
        reading, writing = copies.begin("a", "$a"), copies.begin("a", "$a")
        read(copies, "a", None)
        copies.end_read(reading, entry(1), 0.0)
        assert copies.find("a") is None
        copies.end_write(writing, entry(2), 2, 0.0)
        assert copies.find("a") is None

    def test_misses_found_by_concurrent_reads_are_kept(self) -> None:
        copies = opened(misses=True)
        one, other = copies.begin("a", "$a"), copies.begin("a", "$a")
        copies.end_read(one, None, 0.0)
        copies.end_read(other, None, 0.0)
        assert copies.find("a") is not None


class TestFeed:
    def test_nothing_is_kept_before_the_feed_is_open(self) -> None:
        copies = Copies(Bounds(), lambda key: True)
        copies.proven(module.monotonic(), EVERYTHING)
        write(copies, "a", 1)
        assert copies.find("a") is None
        assert (len(copies), copies.bytes) == (0, 0)

    def test_nothing_is_served_before_the_feed_is_proven(self) -> None:
        copies = Copies(Bounds(), lambda key: True)
        copies.opened(0)
        write(copies, "a", 1)
        assert copies.find("a") is None
        copies.proven(module.monotonic(), EVERYTHING)
        assert revision(copies) == 1

    def test_everything_is_dropped_while_the_feed_is_shut(self) -> None:
        copies = opened()
        write(copies, "a", 1)
        copies.shut()
        copies.proven(module.monotonic(), EVERYTHING)
        write(copies, "b", 2)
        assert (copies.find("a"), copies.find("b")) == (None, None)
        assert (len(copies), copies.bytes, copies.flushes) == (0, 0, 1)

    @pytest.mark.parametrize("shut", [True, False])
    def test_attempts_from_before_the_feed_was_reopened_are_not_copied(self, shut: bool) -> None:
        copies = opened()
        attempts = [copies.begin(key, f"${key}") for key in "ab"]
        if shut:
            copies.shut()
            attempts.append(copies.begin("c", "$c"))
        copies.opened(0)
        copies.proven(module.monotonic(), EVERYTHING)
        copies.end_write(attempts[0], entry(5), 5, 0.0)
        for attempt in attempts[1:]:
            copies.end_read(attempt, entry(6), 0.0)
        assert [revision(copies, key) for key in "abc"] == [None, None, None]
        write(copies, "a", 7)
        assert revision(copies) == 7

    def test_copies_are_served_for_max_stale_after_the_proven_moment(self, clock: Clock) -> None:
        copies = opened(max_stale=1.0)
        write(copies, "a", 1)
        clock.now += 0.999
        assert revision(copies) == 1
        clock.now += 0.002
        assert copies.find("a") is None
        copies.proven(clock.now - 0.5, EVERYTHING)  # when the ping was sent
        clock.now += 0.499
        assert revision(copies) == 1
        # Answered out of order: an earlier proof has no effect.
        copies.proven(clock.now - 1.5, EVERYTHING)
        assert revision(copies) == 1
        clock.now += 0.002
        assert copies.find("a") is None


class TestBounds:
    def test_a_copy_expires_with_its_value_by_the_servers_clock(self, clock: Clock) -> None:
        copies = opened(max_stale=1e6)
        read(copies, "a", entry(1, expires=5000.0 + clock.now + 2), 5000.0)
        clock.now += 1.999
        assert revision(copies) == 1
        clock.now += 0.002
        assert copies.find("a") is None

    def test_a_copy_is_dropped_max_age_after_its_request(self, clock: Clock) -> None:
        copies = opened(max_age=60.0, max_stale=1e6)
        attempt = copies.begin("a", "$a")
        clock.now += 20
        copies.end_read(attempt, entry(1, expires=clock.now + 1e6), 0.0)
        clock.now += 39
        assert revision(copies) == 1
        clock.now += 2
        assert copies.find("a") is None

    def test_the_least_recently_used_copy_is_evicted_first(self) -> None:
        copies = opened(max_entries=2)
        write(copies, "a", 1)
        write(copies, "b", 2)
        assert revision(copies, "a") == 1
        write(copies, "c", 3)
        assert [revision(copies, key) for key in "abc"] == [1, None, 3]

    def test_max_bytes_limits_the_copies(self) -> None:
        size = OVERHEAD_BYTES + len("a$a") + 1000
        copies = opened(max_bytes=2 * size)
        for number, key in enumerate("abc"):
            write(copies, key, number, bytes(1000))
        assert [revision(copies, key) for key in "abc"] == [None, 1, 2]
        assert copies.bytes == 2 * size

    def test_a_value_that_is_too_large_evicts_no_other_copy(self) -> None:
        copies = opened(max_bytes=5000)
        write(copies, "a", 1)
        write(copies, "b", 2)
        write(copies, "b", 3, bytes(5000))
        assert [revision(copies, key) for key in "ab"] == [1, None]

    keys = st.sampled_from("abc")
    revisions = st.integers(1, 9)
    payloads = st.none() | st.integers(0, 900).map(bytes)
    events_strategy = st.one_of(
        st.tuples(st.just("begin"), keys, st.just(0), st.none()),
        st.tuples(st.sampled_from(["read", "write"]), keys, revisions, payloads),
        st.tuples(st.sampled_from(["doubt", "changed", "cleared"]), keys, revisions, st.none()),
        st.tuples(st.sampled_from(["shut", "opened"]), keys, st.just(0), st.none()),
    )

    @given(st.lists(events_strategy, max_size=40), st.booleans())
    def test_the_counted_bytes_are_those_of_the_copies(
        self, events: list[Any], misses: bool
    ) -> None:
        copies = opened(max_entries=2, max_bytes=2500, misses=misses)
        attempts: dict[str, list[Any]] = {key: [] for key in "abc"}
        for what, key, number, payload in events:
            found = None if payload is None else entry(number, payload)
            begun = attempts[key]
            if what == "begin":
                begun.append(copies.begin(key, f"${key}"))
                continue
            if what == "changed":
                copies.changed(f"${key}", number)
            elif what == "cleared":
                copies.cleared(number)
            elif what == "shut":
                copies.shut()
            elif what == "opened":
                copies.opened(number)
            else:
                attempt = begun.pop() if begun else copies.begin(key, f"${key}")
                if what == "read":
                    copies.end_read(attempt, found, 0.0)
                elif what == "write":
                    copies.end_write(attempt, found, number, 0.0)
                else:
                    copies.end_in_doubt(attempt)
            held = list(copies._copies.values())
            assert copies.bytes == sum(each.size for each in held) <= 2500
            assert len(copies) <= 2
            assert {each.subject: each for each in held} == copies._by_subject
            waiting = {f"${each}": len(begun) for each, begun in attempts.items() if begun}
            assert {each: len(left) for each, left in copies._attempts.items()} == waiting


class TestProcess:
    def test_a_forked_child_starts_without_copies(self) -> None:
        copies = opened()
        write(copies, "a", 1)
        inherited = copies.begin("b", "$b")
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            def wait() -> None:
                holding.set()
                done.wait()

            copies._serial.run(wait)

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait()
        copies.after_fork()  # as in the child, where the thread that holds the lock does not exist
        copies.end_read(inherited, entry(2), 0.0)
        assert (copies.find("a"), copies.find("b"), len(copies), copies.bytes) == (None, None, 0, 0)
        copies.opened(0)
        copies.proven(module.monotonic(), EVERYTHING)
        write(copies, "a", 3)
        assert revision(copies) == 3
        done.set()
        thread.join()

    def test_find_works_while_copies_are_evicted(self) -> None:
        """Eviction does not iterate over the copies: a reader that moves one would break it."""
        copies = opened(max_entries=10)
        failures: list[BaseException] = []
        stop = threading.Event()

        def look() -> None:
            try:
                while not stop.is_set():
                    for number in range(12):
                        found = copies.find(f"k{number}")
                        assert found is None or found.key == f"k{number}"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(20_000):
            write(copies, f"k{number % 12}", number)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert copies.bytes == sum(each.size for each in copies._copies.values())
