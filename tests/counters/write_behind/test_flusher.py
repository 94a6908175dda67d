"""The flusher, which is the thread that publishes increments, and dropping increments."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.counters import Counter, Counters, write_behind
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    CounterUnavailable,
    NotSent,
)
from tests.conftest import flushers
from tests.counters.conftest import Configure
from tests.counters.write_behind.conftest import NEVER, NOTHING
from tests.servers import eventually
from tests.support.patience import hurry, pause_when_idle

# The flusher ---------------------------------------------------------------------------------


def test_the_flusher_ends_without_work_and_starts_again_with_it(
    configure: Configure, counters: Counters
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    for turn in range(1, 4):
        counters.incr_later("k")
        assert eventually(lambda: not flushers())
        assert Counter("k") == turn


def test_closing_the_client_loses_no_increments(configure: Configure, counters: Counters) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    for _ in range(20):
        counters.incr_later("k")
        process.close()
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("k") == 20


def test_a_thread_that_cannot_be_started_is_logged_and_retried(
    patient: Counters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert Counter("k") == 0  # starts the thread of the connection, which is not meant here
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
def test_a_crashed_flusher_is_replaced(
    configure: Configure, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    broken = threading.Event()

    def break_down(*args: object) -> None:
        broken.set()
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(drivers, "run", break_down)
        counters.incr_later("k")
        assert broken.wait(60)
        assert eventually(lambda: not flushers())
    counters.incr_later("k")
    assert eventually(lambda: counters.pending == NOTHING)
    assert Counter("k") == 2


def test_new_settings_apply_to_later_increments(configure: Configure, patient: Counters) -> None:
    patient.incr_later("k")
    old = write_behind.backlog("default")
    stream = patient.settings.stream.stream
    configure(FLUSH_INTERVAL=NEVER, STREAM=f"{stream}_new")
    patient.incr_later("k", 5)
    assert patient.pending.total == 5
    old.flush(60)
    patient.flush()
    assert Counter("k") == 5
    configure(STREAM=stream)
    assert Counter("k") == 1


def test_discard_drops_pending_increments(patient: Counters) -> None:
    patient.incr_later("k")
    patient.incr_later("l")
    write_behind.discard()
    assert patient.pending == NOTHING
    patient.incr_later("l")
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


def test_discard_waits_for_a_running_flush(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its increments would become pending again, or arrive in the next test."""
    begun, go_on = threading.Event(), threading.Event()

    def fail(*args: object) -> None:
        begun.set()
        go_on.wait(60)
        raise NotSent

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(drivers, "run", fail)
        patient.incr_later("k")
        flush = pool.submit(patient.flush, 0)
        assert begun.wait(60)
        discard = pool.submit(write_behind.discard)
        assert wait([discard], 0.1).not_done
        go_on.set()
        assert isinstance(flush.exception(), NotSent)
        discard.result()
    assert patient.pending == NOTHING


def test_the_flusher_stays_while_another_thread_publishes(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread may fail and leave the increments to the flusher."""
    backlog = write_behind.backlog("default")
    increment, has_work = backlog._stream.publishing.increment, []

    def note_work(*args: Any) -> Any:
        has_work.append(backlog._flusher._has_work_after(0, backlog._sums.has_pending))
        return increment(*args)

    monkeypatch.setattr(backlog._stream.publishing, "increment", note_work)
    patient.incr_later("k")
    patient.flush()
    assert has_work == [True]


def test_finish_ends_the_flusher(patient: Counters) -> None:
    """At exit it would be cut off, or log an error about the closed connection."""
    backlog = write_behind.backlog("default")
    patient.incr_later("k")
    backlog.finish(60)
    backlog._flusher.wake()
    assert eventually(lambda: not flushers())
    assert Counter("k") == 1


def test_increments_after_finish_are_published_at_once(patient: Counters) -> None:
    """Other atexit functions may run after the one that publishes."""
    patient.incr_later("k")
    write_behind.backlog("default").finish(60)
    for _ in range(3):
        patient.incr_later("k", 10)
        assert patient.pending == NOTHING
    assert Counter("k") == 31


# Deleted rows --------------------------------------------------------------------------------


def test_forget_drops_a_counters_pending_increments(patient: Counters) -> None:
    for name in ("k", "l"):
        patient.incr_later(name)
    write_behind.forget("default", ["k", "none"])
    write_behind.forget("unknown", ["l"])
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


def test_forget_works_while_other_counters_are_published(
    patient: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog = write_behind.backlog("default")
    increment = backlog._stream.publishing.increment

    def forget_it(counter: str, delta: int) -> Any:
        if counter == "k":
            write_behind.forget("default", ["k"])
        return increment(counter, delta)

    monkeypatch.setattr(backlog._stream.publishing, "increment", forget_it)
    for name in ("k", "l"):
        patient.incr_later(name)
    patient.flush()
    assert patient.get_many("kl") == {"k": 0, "l": 1}


@pytest.mark.usefixtures("without_pings")
def test_forget_drops_increments_in_doubt(configure: Configure, own_server: NatsServer) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=NEVER, DEADLINE=60, REQUEST_TIMEOUT=60)
    Counter("l").incr()
    counters.incr_later("k")
    pause_when_idle(own_server, counters)
    hurry(counters, 0.3)
    try:
        with pytest.raises(CounterUnavailable):
            counters.flush(0)
        assert write_behind.backlog("default")._sums.unacknowledged
        write_behind.forget("default", ["k"])
        assert counters.pending == NOTHING
        assert not counters.stream.increments.doubts._doubts
    finally:
        own_server.resume()


# Async ---------------------------------------------------------------------------------------


async def test_increments_from_async_code_are_published(patient: Counters) -> None:
    patient.incr_later("k")
    await asyncio.gather(*(patient.aflush() for _ in range(5)))
    assert await Counter("k").avalue() == 1


async def test_aflush_does_not_block_the_loop(
    configure: Configure, nowhere: dict[str, object]
) -> None:
    counters = configure(**nowhere)
    counters.incr_later("k")
    flush = asyncio.ensure_future(counters.aflush(timeout=1))
    turns = 0
    while not flush.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2  # it would be one if the loop were blocked
    with pytest.raises(CounterUnavailable):
        flush.result()
