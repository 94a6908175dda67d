"""Timeouts of requests, and doubt about the inbox, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from django_nats.client.protocol.steps import Lane, Request
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import pending, timeouts
from django_nats.client.transport.pending import INBOX_SID, Outstanding
from django_nats.client.transport.timeouts import Sweep
from django_nats.client.transport.waiter import Waiter
from tests.support.answers import Clock

INBOX = b"_INBOX.x."


class FakeLink:
    """A connection that counts the doubts about its inbox."""

    def __init__(self) -> None:
        self.outstanding = Outstanding(lambda sid: None)
        self.outstanding.open(INBOX)
        self.flowed_at = 0.0
        self.doubts = self.stops = 0
        self.hearing: Any = self
        self.outgoing: Any = self

    def doubt(self) -> None:
        self.doubts += 1

    def stop(self) -> None:
        self.stops += 1

    def sent_bytes(self) -> int:
        return 1_000_000

    async def flush(self, timeout: int = 10) -> None: ...

    def ask(self, timeout: float) -> Waiter:
        waiter = Waiter([Request(Lane("a lane", timeout), "subject")], lambda: None)
        self.outstanding.enlist(waiter, [], 1_000_000)
        return waiter

    def hear(self, sid: bytes) -> None:
        """Receive a message that answers no request."""
        self.outstanding.received_at = pending.monotonic()
        self.outstanding.take(sid, Reply(b"", b"", b"", INBOX + b"other"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (pending, timeouts):
        monkeypatch.setattr(module, "monotonic", made)
    return made


Make = Callable[[FakeLink], Sweep]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Return a function that makes a sweep, which is stopped at the end of the test."""
    made: list[Sweep] = []

    def make(link: FakeLink) -> Sweep:
        made.append(Sweep(link, lambda lane: None))
        return made[-1]

    yield make
    for each in made:
        each.stop()  # otherwise it could start a task as the loop ends


@pytest.mark.parametrize(("timeout", "seconds"), [(0.5, 0.25), (2.0, 1.0), (60.0, 1.0)])
async def test_a_request_without_any_answer_puts_the_inbox_in_doubt(
    make: Make, clock: Clock, timeout: float, seconds: float
) -> None:
    link = FakeLink()
    tested = make(link)
    link.ask(timeout)
    clock.now += seconds
    tested.run(patient=False)
    assert link.doubts == 0
    clock.now += 0.01
    tested.run(patient=False)
    assert link.doubts == 1


@pytest.mark.parametrize(("sid", "doubts"), [(INBOX_SID, 0), (b"7", 9)], ids=["inbox", "another"])
async def test_only_messages_in_the_inbox_remove_doubt(
    make: Make, clock: Clock, sid: bytes, doubts: int
) -> None:
    link = FakeLink()
    tested = make(link)
    link.ask(60.0)
    for _ in range(10):
        clock.now += 0.9
        link.hear(sid)
        tested.run(patient=False)
    assert link.doubts == doubts


async def test_the_inbox_is_not_in_doubt_without_a_waiting_request(
    make: Make, clock: Clock
) -> None:
    link = FakeLink()
    tested = make(link)
    waiter = link.ask(60.0)
    link.outstanding.forget(waiter)
    clock.now += 30
    tested.run(patient=False)
    assert link.doubts == 0


async def test_stopping_ends_the_test_of_the_inbox(make: Make) -> None:
    link = FakeLink()
    make(link).stop()
    assert link.stops == 1


async def test_a_sweep_that_was_stopped_runs_no_more(make: Make, clock: Clock) -> None:
    link, later = FakeLink(), asyncio.Event()
    tested = make(link)
    waiter = link.ask(0.1)
    tested.begin()
    tested.stop()
    clock.now += 0.15
    asyncio.get_running_loop().call_later(2 * timeouts._TICK_S, later.set)
    await later.wait()
    assert waiter.unanswered


async def test_a_request_that_is_sent_as_the_sweeps_end_is_not_overlooked(
    make: Make, clock: Clock
) -> None:
    begins: list[bool] = []

    class Overtaken(Outstanding):
        """Another thread sends a request just after the sweep has found none."""

        def __len__(self) -> int:
            found = super().__len__()
            if not found:
                link.ask(60.0)
                begins.append(not tested.armed)  # as Connection._start_timeouts() does
            return found

    link = FakeLink()
    tested = make(link)
    waiter = link.ask(60.0)
    tested.begin()
    link.outstanding.forget(waiter)
    link.outstanding = Overtaken(lambda sid: None)
    link.outstanding.open(INBOX)
    tested.run(patient=False)
    assert begins == [True] or tested.armed
