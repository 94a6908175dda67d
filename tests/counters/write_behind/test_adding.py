"""incr_later() adds up in the process and publishes in the background, exactly once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_nats.counters import Counter, Counters
from django_nats.exceptions import (
    CounterUnavailable,
    InvalidKey,
    ReadOnlyCounter,
)
from tests.counters.conftest import Configure
from tests.counters.write_behind.conftest import NEVER, NOTHING, messages
from tests.servers import eventually

# Adding up -----------------------------------------------------------------------------------


def test_increments_are_published_in_the_background(
    configure: Configure, counters: Counters
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    counters.incr_later("page.home")
    Counter("page.home").incr_later(41)
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("page.home") == 42


def test_incr_later_sends_no_request(patient: Counters) -> None:
    patient.incr_later("k", 5)
    Counter("k").incr_later(-2)
    assert Counter("k") == 0
    assert patient.pending[:2] == (1, 3)
    patient.flush()
    assert Counter("k") == 3
    assert patient.pending == NOTHING


def test_a_thousand_increments_are_published_as_one_message(patient: Counters) -> None:
    before = messages(patient)
    for _ in range(1000):
        patient.incr_later("k")
    patient.flush()
    assert Counter("k") == 1000
    assert messages(patient) == before + 1


def test_increments_that_add_up_to_zero_are_not_published(patient: Counters) -> None:
    before = messages(patient)
    patient.incr_later("k", 5)
    patient.incr_later("k", -5)
    patient.flush()
    assert messages(patient) == before
    assert patient.pending == NOTHING


def test_more_counters_than_one_batch_are_published(patient: Counters) -> None:
    expected = {f"many.{number}": number for number in range(1, 3000)}
    for name, number in expected.items():
        patient.incr_later(name, number)
    patient.flush()
    assert patient.matching("many.*") == expected


def test_counters_left_at_the_timeout_stay_pending(patient: Counters) -> None:
    for number in range(2000):
        patient.incr_later(f"many.{number}")
    with pytest.raises(
        CounterUnavailable, match=r"^Increments of 976 counters .*: there was no time for all"
    ):
        patient.flush(timeout=0)
    assert patient.pending[:2] == (976, 976)
    patient.flush()
    assert patient.total("many.*") == 2000


def test_flush_at_publishes_before_the_interval_ends(
    configure: Configure, counters: Counters
) -> None:
    counters = configure(FLUSH_INTERVAL=NEVER, FLUSH_AT=10)
    for number in range(9):
        counters.incr_later(f"k.{number % 2}")
    assert counters.pending[:2] == (2, 9)
    assert counters.total(">") == 0
    counters.incr_later("k.0")
    assert eventually(lambda: counters.total(">") == 10)


@pytest.mark.parametrize("n", [1.0, True, "1", None], ids=repr)
def test_an_amount_that_is_not_an_integer_raises_type_error(patient: Counters, n: Any) -> None:
    for add in (Counter("k").incr_later, lambda n: patient.incr_later("k", n)):
        with pytest.raises(TypeError, match=f"n must be an integer, not {n!r}"):
            add(n)
    assert patient.pending == NOTHING


def test_names_are_validated_like_those_of_counters(patient: Counters) -> None:
    patient.incr_later(("clicks", "eu.west"))
    Counter("clicks", "eu.west").incr_later()
    patient.flush()
    assert patient.get_many([("clicks", "eu.west"), "clicks.eu.west"]) == {
        ("clicks", "eu.west"): 2,
        "clicks.eu.west": 0,
    }
    for name in ("", "a..b", ()):
        with pytest.raises(InvalidKey):
            patient.incr_later(name)
    assert patient.pending == NOTHING


def test_each_alias_has_its_own_pending_increments(configure: Configure, patient: Counters) -> None:
    other = configure("other", FLUSH_INTERVAL=NEVER)
    patient.incr_later("k")
    Counter("k", alias="other").incr_later(5)
    assert (patient.pending.total, other.pending.total) == (1, 5)
    other.flush()
    assert (patient.pending.total, other.pending.total) == (1, 0)
    assert Counter("k", alias="other") == 5


def test_sums_and_unknown_aliases_are_refused_at_once(
    configure: Configure, patient: Counters
) -> None:
    configure("sum", SOURCES=["EU"])
    with pytest.raises(ReadOnlyCounter, match="are the sums of its SOURCES"):
        Counter("k", alias="sum").incr_later()
    with pytest.raises(ImproperlyConfigured, match='no alias "nowhere"'):
        Counter("k", alias="nowhere").incr_later()


def test_amounts_may_have_any_size(patient: Counters) -> None:
    patient.incr_later("k", 10**40)
    patient.incr_later("k", -1)
    patient.flush()
    assert Counter("k") == 10**40 - 1


# Many threads --------------------------------------------------------------------------------


def test_half_a_million_increments_from_eight_threads_are_counted_exactly(
    configure: Configure, counters: Counters
) -> None:
    """The flusher publishes increments all the time while the threads add."""
    counters = configure(FLUSH_INTERVAL=0.001, FLUSH_AT=1000)
    deltas = (1, -3, 10**20, 7)

    def work(number: int) -> None:
        one, own = Counter("one"), Counter("own", str(number))
        for turn in range(62_500):
            one.incr_later(deltas[turn % 4])
            own.incr_later()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    counters.flush()
    assert Counter("one") == 8 * 62_500 // 4 * sum(deltas)
    assert counters.matching("own.*") == {f"own.{number}": 62_500 for number in range(8)}


def test_concurrent_flushes_publish_each_increment_once(patient: Counters) -> None:
    def work(_: int) -> None:
        for _ in range(20):
            patient.incr_later("k")
            patient.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert Counter("k") == 160


class Interrupting(int):
    """An integer that runs a function while it is added, as a signal or a finalizer might."""

    function: Any

    def __radd__(self, other: int) -> int:
        self.function()
        return other + int(self)


@pytest.mark.parametrize("name", ["incr_later", "pending", "flush"])
def test_a_call_that_interrupts_an_addition_neither_hangs_nor_miscounts(
    patient: Counters, name: str
) -> None:
    def interrupt() -> None:
        if name == "incr_later":
            for _ in range(20_000):
                Counter("k").incr_later()
        elif name == "pending":
            assert patient.pending.counters <= 1
        else:
            with pytest.raises(CounterUnavailable, match="was interrupted while it added up"):
                patient.flush(timeout=0)

    patient.incr_later("k")
    interrupting = Interrupting(10)
    interrupting.function = interrupt
    patient.incr_later("k", interrupting)
    assert patient.pending.counters == 1
    patient.flush()
    assert Counter("k") == 11 + (20_000 if name == "incr_later" else 0)


# Settings ------------------------------------------------------------------------------------


def test_settings_have_their_defaults_and_values(configure: Configure) -> None:
    settings = configure().settings
    assert (settings.flush_interval, settings.flush_at, settings.max_pending) == (1, 10_000, 10**5)
    settings = configure(FLUSH_INTERVAL=0.5, FLUSH_AT=1, MAX_PENDING=2).settings
    assert (settings.flush_interval, settings.flush_at, settings.max_pending) == (0.5, 1, 2)


@pytest.mark.parametrize("option", ["FLUSH_INTERVAL", "FLUSH_AT", "MAX_PENDING"])
@pytest.mark.parametrize("value", [0, -1, "1", None, True])
def test_wrong_settings_are_refused(configure: Configure, option: str, value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf'NATS_COUNTERS\["default"\]: {option} must'):
        configure(**{option: value}).incr_later("k")
