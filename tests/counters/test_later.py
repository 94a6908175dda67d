"""incr_later: added up in the process, published in the background, exactly once."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from multiprocessing import util
from time import monotonic
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_nats.client import bridge
from django_nats.counters import Counter, Counters, later
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    CounterUnavailable,
    InvalidKey,
    NatsError,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    ReadOnlyCounter,
    ValueTooLarge,
)
from django_nats.stats import Pending
from tests.counters.conftest import Configure, stream_info
from tests.servers import eventually
from tests.support.ports import free_port

NEVER = 3000
"""A FLUSH_INTERVAL that does not come to its end."""
NOTHING = Pending(0, 0, 0.0, "")


@pytest.fixture
def configure(configure: Configure) -> Iterator[Configure]:
    yield configure
    later.discard()


@pytest.fixture
def patient(configure: Configure, counters: Counters) -> Counters:
    """Counters that nobody publishes but flush()."""
    return configure(FLUSH_INTERVAL=NEVER)


def flushers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "django-nats-counters"]


def messages(counters: Counters) -> int:
    """How many the alias's stream has ever stored."""
    return int(stream_info(counters)["state"]["last_seq"])


# Adding up -----------------------------------------------------------------------------------


def test_it_arrives_by_itself(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    counters.incr_later("page.home")
    Counter("page.home").incr_later(41)
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("page.home") == 42


def test_it_asks_nobody(patient: Counters) -> None:
    patient.incr_later("k", 5)
    Counter("k").incr_later(-2)
    assert Counter("k") == 0
    assert patient.pending[:2] == (1, 3)
    patient.flush()
    assert Counter("k") == 3
    assert patient.pending == NOTHING


def test_a_thousand_are_one_message(patient: Counters) -> None:
    before = messages(patient)
    for _ in range(1000):
        patient.incr_later("k")
    patient.flush()
    assert Counter("k") == 1000
    assert messages(patient) == before + 1


def test_what_adds_up_to_nothing_is_no_message(patient: Counters) -> None:
    before = messages(patient)
    patient.incr_later("k", 5)
    patient.incr_later("k", -5)
    patient.flush()
    assert messages(patient) == before
    assert patient.pending == NOTHING


def test_more_counters_than_go_out_at_once(patient: Counters) -> None:
    expected = {f"many.{number}": number for number in range(1, 3000)}
    for name, number in expected.items():
        patient.incr_later(name, number)
    patient.flush()
    assert patient.matching("many.*") == expected


def test_more_counters_than_there_is_time_for(patient: Counters) -> None:
    for number in range(2000):
        patient.incr_later(f"many.{number}")
    with pytest.raises(CounterUnavailable, match=r"^976 counters .*: there was no time for all"):
        patient.flush(timeout=0)
    assert patient.pending[:2] == (976, 976)
    patient.flush()
    assert patient.total("many.*") == 2000


def test_so_many_are_not_kept_for_the_interval(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=NEVER, FLUSH_AT=10)
    for number in range(9):
        counters.incr_later(f"k.{number % 2}")
    assert counters.pending[:2] == (2, 9)
    assert counters.total(">") == 0
    counters.incr_later("k.0")
    assert eventually(lambda: counters.total(">") == 10)


@pytest.mark.parametrize("n", [1.0, True, "1", None], ids=repr)
def test_a_delta_is_an_integer(patient: Counters, n: Any) -> None:
    for add in (Counter("k").incr_later, lambda n: patient.incr_later("k", n)):
        with pytest.raises(TypeError, match=f"n must be an integer, not {n!r}"):
            add(n)
    assert patient.pending == NOTHING


def test_names_are_those_of_counters(patient: Counters) -> None:
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


def test_each_alias_has_its_own(configure: Configure, patient: Counters) -> None:
    other = configure("other", FLUSH_INTERVAL=NEVER)
    patient.incr_later("k")
    Counter("k", alias="other").incr_later(5)
    assert (patient.pending.total, other.pending.total) == (1, 5)
    other.flush()
    assert (patient.pending.total, other.pending.total) == (1, 0)
    assert Counter("k", alias="other") == 5


def test_what_cannot_work_is_refused_at_once(configure: Configure, patient: Counters) -> None:
    configure("sum", SOURCES=["EU"])
    with pytest.raises(ReadOnlyCounter, match="are the sums of those of its SOURCES"):
        Counter("k", alias="sum").incr_later()
    with pytest.raises(ImproperlyConfigured, match='no alias "nowhere"'):
        Counter("k", alias="nowhere").incr_later()


def test_an_integer_of_any_size(patient: Counters) -> None:
    patient.incr_later("k", 10**40)
    patient.incr_later("k", -1)
    patient.flush()
    assert Counter("k") == 10**40 - 1


# Many threads --------------------------------------------------------------------------------


def test_a_million_from_eight_threads(configure: Configure, counters: Counters) -> None:
    """While the flusher takes them away all the time."""
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


def test_many_flush_at_once(patient: Counters) -> None:
    def work(_: int) -> None:
        for _ in range(20):
            patient.incr_later("k")
            patient.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert Counter("k") == 160


class Interrupting(int):
    """An integer that stands for a signal or a finalizer in the midst of adding up."""

    what: Any

    def __radd__(self, other: int) -> int:
        self.what()
        return other + int(self)


@pytest.mark.parametrize("name", ["incr_later", "pending", "flush"])
def test_interrupted_in_the_midst_of_adding_up(patient: Counters, name: str) -> None:
    """It neither hangs nor counts anything twice or not at all."""

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
    interrupting.what = interrupt
    patient.incr_later("k", interrupting)
    assert patient.pending.counters == 1
    patient.flush()
    assert Counter("k") == 11 + (20_000 if name == "incr_later" else 0)


# The flusher ---------------------------------------------------------------------------------


def test_the_flusher_ends_and_begins_with_what_there_is_to_do(
    configure: Configure, counters: Counters
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    for turn in range(1, 4):
        counters.incr_later("k")
        assert eventually(lambda: not flushers())
        assert Counter("k") == turn


def test_closing_the_bridge_loses_nothing(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    for _ in range(20):
        counters.incr_later("k")
        bridge.close()
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("k") == 20


def test_a_thread_that_cannot_be_started(
    patient: Counters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            patient.incr_later("k")
    assert caplog.text.count("cannot be started: can't start new thread") == 1
    patient.incr_later("k")
    assert len(flushers()) == 1
    patient.flush()
    assert Counter("k") == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_another_flusher_follows_one_that_broke_down(
    configure: Configure, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    broken = threading.Event()

    def break_down(*args: object) -> None:
        broken.set()
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(bridge, "run", break_down)
        counters.incr_later("k")
        assert broken.wait(5)
        assert eventually(lambda: not flushers())
    counters.incr_later("k")
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("k") == 2


def test_new_settings_are_for_what_comes_after(configure: Configure, patient: Counters) -> None:
    patient.incr_later("k")
    kept = later.backlog("default")
    stream = patient.settings.stream.stream
    configure(FLUSH_INTERVAL=NEVER, STREAM=f"{stream}_new")
    patient.incr_later("k", 5)
    assert patient.pending.total == 5
    kept.flush(5)
    patient.flush()
    assert Counter("k") == 5
    configure(STREAM=stream)
    assert Counter("k") == 1


def test_discard(patient: Counters) -> None:
    patient.incr_later("k")
    patient.incr_later("l")
    later.discard()
    assert patient.pending == NOTHING
    patient.incr_later("l")
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


def test_discard_waits_for_what_is_being_sent(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would come back, or arrive in the next test."""
    begun, go_on = threading.Event(), threading.Event()

    def fail(*args: object) -> None:
        begun.set()
        go_on.wait(5)
        raise NotSent

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(bridge, "run", fail)
        patient.incr_later("k")
        flush = pool.submit(patient.flush, 0)
        assert begun.wait(5)
        discard = pool.submit(later.discard)
        assert wait([discard], 0.1).not_done
        go_on.set()
        assert isinstance(flush.exception(), NotSent)
        discard.result()
    assert patient.pending == NOTHING


def test_the_flusher_stays_while_another_publishes(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may fail, and leave it to the flusher."""
    backlog = later.backlog("default")
    increment, ended = backlog._stream.increment, []

    def look(*args: Any) -> Any:
        ended.append(backlog._has_nothing_left(0))
        return increment(*args)

    monkeypatch.setattr(backlog._stream, "increment", look)
    patient.incr_later("k")
    patient.flush()
    assert ended == [False]


def test_at_the_end_the_flusher_ends_too(patient: Counters) -> None:
    """It would be cut off in the midst of it, and tell of a connection that is closed."""
    backlog = later.backlog("default")
    patient.incr_later("k")
    backlog.finish(5)
    backlog._wake.set()
    assert eventually(lambda: not flushers())
    assert Counter("k") == 1


def test_what_is_added_after_the_end_is_published_at_once(patient: Counters) -> None:
    """There are functions at exit that are called later than the one that publishes."""
    patient.incr_later("k")
    later.backlog("default").finish(5)
    for _ in range(3):
        patient.incr_later("k", 10)
        assert patient.pending == NOTHING
    assert Counter("k") == 31


# Deleted rows --------------------------------------------------------------------------------


def test_what_is_pending_of_a_counter_is_forgotten(patient: Counters) -> None:
    for name in ("k", "l"):
        patient.incr_later(name)
    later.forget("default", ["k", "none"])
    later.forget("unknown", ["l"])
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


def test_it_is_forgotten_while_others_are_published(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog = later.backlog("default")
    increment = backlog._stream.increment

    def forget_it(counter: str, delta: int) -> Any:
        if counter == "k":
            later.forget("default", ["k"])
        return increment(counter, delta)

    monkeypatch.setattr(backlog._stream, "increment", forget_it)
    for name in ("k", "l"):
        patient.incr_later(name)
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


def test_what_is_in_doubt_is_forgotten_too(configure: Configure, own_server: NatsServer) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, DEADLINE=2, REQUEST_TIMEOUT=0.3)
    Counter("l").incr()
    counters.incr_later("k")
    own_server.pause()
    try:
        with pytest.raises(CounterUnavailable):
            counters.flush(0)
        assert later.backlog("default")._under_way
        later.forget("default", ["k"])
        assert counters.pending == NOTHING
        assert not counters.stream._doubts
    finally:
        own_server.resume()


def test_one_farewell_for_each_process(configure: Configure) -> None:
    for stream in ("a", "b", "c"):
        configure(STREAM=stream).incr_later("k")
        later.discard()
    finalizers = util._finalizer_registry.values()  # type: ignore[attr-defined]
    assert sum(each._callback is later._at_exit for each in finalizers) == 1


# Async ---------------------------------------------------------------------------------------


async def test_from_async_code(patient: Counters) -> None:
    patient.incr_later("k")
    await asyncio.gather(*(patient.aflush() for _ in range(5)))
    assert await Counter("k").avalue() == 1


async def test_aflush_does_not_hold_up_the_loop(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    counters = configure(**nowhere)
    counters.incr_later("k")
    flush = asyncio.ensure_future(counters.aflush(timeout=1))
    turns = 0
    while not flush.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 2  # held up, it would be one
    with pytest.raises(CounterUnavailable):
        flush.result()


# Away ----------------------------------------------------------------------------------------


@pytest.fixture
def nowhere() -> dict[str, object]:
    """Options for a server that nobody ever started."""
    url = f"nats://127.0.0.1:{free_port()}"
    return {"LOCATION": url, "TOKEN": "", "CONNECT_TIMEOUT": 0.2, "FLUSH_INTERVAL": NEVER}


def test_what_cannot_be_published_is_kept(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**nowhere)
    counters.incr_later("k", 3)
    for _ in range(2):
        with pytest.raises(CounterUnavailable, match=r"^1 counters of the stream test_") as caught:
            counters.flush(timeout=0)
        assert caught.value.may_have_happened is False
    counters.incr_later("k")
    pending = counters.pending
    assert pending[:2] == (1, 4)
    assert pending.age > 0
    assert "No connection to NATS" in pending.error
    assert caplog.text.count("have to wait") == 1


def test_flush_fails_open(configure: Configure, nowhere: dict[str, object]) -> None:
    counters = configure(**nowhere, FAIL_OPEN=True)
    counters.incr_later("k")
    counters.flush(timeout=0)
    assert counters.pending.counters == 1


def test_flush_gives_up_in_time(configure: Configure, nowhere: dict[str, object]) -> None:
    """DEADLINE, where nothing else is said."""
    counters = configure(**nowhere, DEADLINE=0.3)
    counters.incr_later("k")
    with pytest.raises(CounterUnavailable):
        counters.flush()
    with ThreadPoolExecutor(1) as pool:
        longer = pool.submit(counters.flush, 1)
        assert eventually(later.backlog("default")._publishing.locked)
        with pytest.raises(CounterUnavailable, match="another thread is publishing"):
            counters.flush(timeout=0.1)
        assert isinstance(longer.exception(), CounterUnavailable)


def test_what_is_added_while_a_try_fails(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To those that were tried, and to those that it did not come to."""
    names = [f"k.{number}" for number in range(1100)]
    for name in names:
        patient.incr_later(name)

    def fail(*args: object) -> None:
        for name in (names[0], names[-1], "new"):
            patient.incr_later(name, 10)
        assert patient.pending[:2] == (1101, 1130)
        raise NotSent

    with monkeypatch.context() as patch:
        patch.setattr(bridge, "run", fail)
        with pytest.raises(NotSent):
            patient.flush(timeout=0)
    assert patient.pending[:2] == (1101, 1130)
    patient.flush()
    assert patient.get_many([names[0], names[1], names[-1], "new"]) == {
        names[0]: 11,
        names[1]: 1,
        names[-1]: 11,
        "new": 10,
    }


def test_the_age_is_that_of_what_is_pending(patient: Counters) -> None:
    began = monotonic()
    patient.incr_later("k")
    assert eventually(lambda: patient.pending.age > 0.05)
    patient.flush()
    patient.incr_later("k")
    assert patient.pending.age < monotonic() - began - 0.05


def test_an_outage_is_waited_for(
    configure: Configure, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(on=own_server, STORAGE="file", FLUSH_INTERVAL=0.01)
    counters.incr_later("k")
    counters.flush()
    own_server.kill()
    for number in range(100):
        counters.incr_later("k")
        counters.incr_later(f"k.{number}")
    assert eventually(lambda: counters.pending.error)
    assert counters.pending[:2] == (101, 200)
    own_server.start()
    assert eventually(lambda: counters.pending == NOTHING, 10)
    assert Counter("k") == 101
    assert counters.total("k.*") == 100
    assert caplog.text.count("have to wait") == caplog.text.count("published again") == 1


def test_after_trouble_a_single_one_goes_ahead(patient: Counters) -> None:
    """An outage that goes on puts no more in doubt, and costs no more, than one at a time."""
    backlog = later.backlog("default")
    increments = [patient.stream.increment("k", 1) for _ in range(3000)]
    assert [len(each) for each in backlog._chunks(increments)] == [1024, 1024, 952]
    backlog._error = "trouble"
    assert [len(each) for each in backlog._chunks(increments)] == [1, 1024, 1024, 951]


def test_a_long_outage_costs_little(
    configure: Configure, nowhere: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is to do: no try at all of it, and no hurry."""
    counters = configure(**nowhere, FLUSH_AT=100)
    backlog = later.backlog("default")
    increment, tried, woken = backlog._stream.increment, [], []

    def count(*args: Any) -> Any:
        tried.append(args)
        return increment(*args)

    monkeypatch.setattr(backlog._stream, "increment", count)
    for number in range(90):
        counters.incr_later(f"k.{number}")
    for _ in range(3):
        with pytest.raises(CounterUnavailable):
            counters.flush(timeout=0)
    assert len(tried) == 90 + 1 + 1
    monkeypatch.setattr(backlog._wake, "set", lambda: woken.append(1))
    for number in range(1000):
        counters.incr_later(f"k.{number}")
    assert woken == []
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0.3)
    assert len(tried) < 1000


def test_what_was_sent_and_not_answered_counts_once(
    configure: Configure, own_server: NatsServer
) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, REQUEST_TIMEOUT=0.2, DEADLINE=30)
    counters.incr("k")
    before = counters.stream.recognised
    own_server.pause()
    counters.incr_later("k", 10)
    with pytest.raises(CounterUnavailable) as caught:
        counters.flush(timeout=0)
    assert caught.value.may_have_happened is True
    counters.incr_later("k", 100)
    assert counters.pending[:2] == (1, 110)
    own_server.resume()
    counters.flush()
    assert Counter("k") == 111
    assert counters.stream.recognised == before + 1


def test_what_the_server_has_forgotten_is_not_sent_again(
    configure: Configure, own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It might count twice. What it was is logged."""
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, REQUEST_TIMEOUT=0.3, DEADLINE=0.3)
    counters.incr("k")
    own_server.pause()
    counters.incr_later("k", 10)
    counters.incr_later("l", -1)
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0)
    counters.incr_later("k", 100)

    def is_given_up() -> bool:
        with pytest.raises(CounterUnavailable):
            counters.flush(timeout=0)
        return counters.pending.total == 100

    assert eventually(is_given_up)
    assert "2 increments have arrived" in caplog.text
    assert "They may be missing: k (+10), l (-1)" in caplog.text
    own_server.resume()
    counters.flush(timeout=5)
    assert Counter("k") == 111  # this one had arrived
    assert counters.stream._doubts == {}


def test_what_is_forgotten_holds_nobody_back(configure: Configure, own_server: NatsServer) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, REQUEST_TIMEOUT=0.2)
    counters.incr("k")
    own_server.pause()
    counters.incr_later("k", 10)
    with pytest.raises(CounterUnavailable):
        counters.flush(timeout=0)
    assert "k" in counters.stream._doubts
    later.discard()
    assert counters.pending == NOTHING
    assert counters.stream._doubts == {}


# Bounds --------------------------------------------------------------------------------------


def test_only_so_many_counters_wait(configure: Configure, nowhere: dict[str, object]) -> None:
    """Those that wait go on adding up: that takes no more room."""
    counters = configure(**nowhere, MAX_PENDING=3)
    for name in "abc":
        counters.incr_later(name)
    with pytest.raises(CounterUnavailable, match=r"^3 counters.*\(MAX_PENDING\), and d was not"):
        counters.incr_later("d")
    for name in "abc":
        counters.incr_later(name)
    assert counters.pending[:2] == (3, 6)


def test_room_comes_back(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=NEVER, MAX_PENDING=1)
    counters.incr_later("a")
    with pytest.raises(CounterUnavailable, match="so many are pending already"):
        counters.incr_later("b")
    counters.flush(float("inf"))
    counters.incr_later("b")
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        counters.flush(float("nan"))
    counters.flush()
    assert counters.get_many("ab") == {"a": 1, "b": 1}


def test_what_has_no_room_is_dropped_under_fail_open(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**nowhere, MAX_PENDING=1, FAIL_OPEN=True)
    for name in "abcda":
        counters.incr_later(name)
    assert counters.pending[:2] == (1, 2)
    assert caplog.text.count("MAX_PENDING") == 1
    later.discard()
    for name in "xyz":
        counters.incr_later(name)
    assert caplog.text.count("MAX_PENDING") == 2


# Refused -------------------------------------------------------------------------------------


def test_one_that_is_refused_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is kept, for the day when its permission comes."""
    users = """authorization { users: [{ user: web, password: secret, permissions: { publish: {
        deny: ["hits.secret"] } } }] }"""
    login = {"USER": "web", "PASSWORD": "secret", "STREAM": "HITS", "FLUSH_INTERVAL": NEVER}
    with NatsServer(token="", config=users) as server:
        aliases = {"default": {"LOCATION": server.url, **login}}
        with override_settings(NATS_COUNTERS=aliases):
            counters = Counters()
            counters.incr_later("secret", 7)
            for total in (1, 2):
                counters.incr_later("public")
                with pytest.raises(PermissionDenied, match="The counter secret of the stream HITS"):
                    counters.flush()
                assert counters.get_many(["secret", "public"]) == {"secret": 0, "public": total}
            assert counters.pending[:2] == (1, 7)
            assert caplog.text.count("have to wait") == 1
        later.discard()
        bridge.close()


def test_what_is_refused_while_it_is_in_doubt(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added meanwhile does not take its place."""
    patient.incr("k")
    answers: list[NatsError] = [OutcomeUnknown(), PermissionDenied(), PermissionDenied()]

    def answer(_: object, steps: Any) -> None:
        with suppress(StopIteration):
            next(steps)
            steps.send([answers.pop(0)])

    with monkeypatch.context() as patch:
        patch.setattr(bridge, "run", answer)
        for n, timeout in ((10, 0), (100, 5), (1000, 5)):
            patient.incr_later("k", n)
            with pytest.raises(NatsError):
                patient.flush(timeout)
    assert patient.pending[:2] == (1, 1110)
    patient.flush()
    assert Counter("k") == 1111


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="as long as you like")
def test_more_digits_than_python_writes(patient: Counters) -> None:
    patient.incr_later("k", 10**5000)
    for number in range(2000):
        patient.incr_later(f"many.{number}")
    with pytest.raises(ValueTooLarge, match="counter k of the stream"):
        patient.flush()
    assert patient.total("many.*") == 2000
    patient.incr_later("k", 5 - 10**5000)
    patient.flush()
    assert Counter("k") == 5


def test_trouble_is_logged_without_a_word_on_secrets(
    configure: Configure, nowhere: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    counters = configure(**{**nowhere, "TOKEN": "open-sesame"})
    counters.incr_later("k")
    with caplog.at_level(logging.DEBUG), pytest.raises(CounterUnavailable) as caught:
        counters.flush(timeout=0)
    told = caplog.text + str(caught.value) + counters.pending.error + repr(later.backlog("default"))
    assert "open-sesame" not in told


# Settings ------------------------------------------------------------------------------------


def test_settings(configure: Configure) -> None:
    settings = configure().settings
    assert (settings.flush_interval, settings.flush_at, settings.max_pending) == (1, 10_000, 10**5)
    settings = configure(FLUSH_INTERVAL=0.5, FLUSH_AT=1, MAX_PENDING=2).settings
    assert (settings.flush_interval, settings.flush_at, settings.max_pending) == (0.5, 1, 2)


@pytest.mark.parametrize("option", ["FLUSH_INTERVAL", "FLUSH_AT", "MAX_PENDING"])
@pytest.mark.parametrize("value", [0, -1, "1", None, True])
def test_wrong_settings(configure: Configure, option: str, value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf'NATS_COUNTERS\["default"\]: {option} must'):
        configure(**{option: value}).incr_later("k")
