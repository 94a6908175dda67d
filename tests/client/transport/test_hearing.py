"""The check that answers still arrive: tests of the inbox, and when a connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import hearing
from django_nats.client.transport.hearing import Deaf, Hearing
from django_nats.client.transport.pending import INBOX_SID, Outstanding
from tests.support.answers import Clock


def _no() -> bool:
    return False


class FakeLink:
    """A connection whose server answers pings, and delivers to the inbox if ``answering``."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.outstanding = Outstanding(lambda sid: None)
        self.asked: list[float] = []
        self.pings: list[float] = []
        self.answering: Callable[[], bool] = _no
        self.stopped: asyncio.Future[None] | None = None
        self.when_pinged: Callable[[], object] = _no

    def send_to_inbox(self) -> None:
        self.asked.append(self.clock())
        if self.answering():
            self.outstanding.received_at = self.clock()
            self.outstanding.take(INBOX_SID, Reply(b"", b"", b"", b"_INBOX.x.0"))

    async def ping(self) -> None:
        self.pings.append(self.clock())
        self.when_pinged()
        if self.stopped is not None:
            await asyncio.wait({self.stopped, self.lost}, return_when=asyncio.FIRST_COMPLETED)

    def lose(self, error: Exception) -> None:
        self.lost.set_result(error)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    async def sleep(seconds: float) -> None:
        made.now += seconds

    monkeypatch.setattr(hearing, "monotonic", made)
    monkeypatch.setattr(hearing.asyncio, "sleep", sleep)
    return made


def requests_wait(tested: Hearing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call doubt() repeatedly, as for a request without an answer."""
    let_pass = hearing.asyncio.sleep

    async def doubt(seconds: float) -> None:
        await let_pass(seconds)
        tested.doubt()

    monkeypatch.setattr(hearing.asyncio, "sleep", doubt)


async def ended(tested: Hearing) -> None:
    assert tested._proof is not None
    await tested._proof


async def test_an_inbox_without_an_answer_for_three_seconds_ends_the_connection(
    clock: Clock,
) -> None:
    link, began = FakeLink(clock), clock()
    tested = Hearing(link)
    tested.doubt()
    await ended(tested)
    assert isinstance(link.lost.result(), Deaf)
    assert clock() - began == 3.0
    assert link.asked == link.pings == [began + seconds for seconds in (0, 0.75, 1.5, 2.25, 3)]


async def test_any_message_in_the_inbox_ends_the_test(clock: Clock) -> None:
    link = FakeLink(clock)
    link.answering = lambda: len(link.asked) == 3
    tested = Hearing(link)
    tested.doubt()
    await ended(tested)
    assert not link.lost.done()
    assert len(link.asked) == 3


async def test_a_stopped_server_is_not_taken_for_a_dropped_inbox(clock: Clock) -> None:
    """The same holds for a blocked loop: the inbox is checked after the ping is answered."""
    link = FakeLink(clock)
    link.stopped = asyncio.get_running_loop().create_future()
    tested = Hearing(link)
    tested.doubt()
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    clock.now += 60
    link.outstanding.answered_at = clock()
    link.stopped.set_result(None)
    await ended(tested)
    assert not link.lost.done()


async def test_a_long_wait_for_one_ping_does_not_end_the_connection(clock: Clock) -> None:
    link = FakeLink(clock)

    def slow() -> None:
        if len(link.pings) == 1:
            clock.now += 60

    link.when_pinged = slow
    link.answering = lambda: len(link.asked) == 2
    tested = Hearing(link)
    tested.doubt()
    await ended(tested)
    assert not link.lost.done()


async def test_a_connection_that_is_lost_meanwhile_is_left_alone(clock: Clock) -> None:
    link = FakeLink(clock)
    error = ConnectionError("lost for another reason")
    link.when_pinged = lambda: link.lost.set_result(error)
    tested = Hearing(link)
    tested.doubt()
    await ended(tested)
    assert link.lost.result() is error


async def test_without_permission_the_test_ends_with_the_last_request(
    clock: Clock,
) -> None:
    """Without requests, no answer is due."""
    link = FakeLink(clock)
    tested = Hearing(link)
    tested.permitted = False
    tested.doubt()
    await ended(tested)
    assert not link.lost.done()


async def test_without_permission_the_connection_is_kept_longer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, began = FakeLink(clock), clock()
    tested = Hearing(link)
    tested.permitted = False
    requests_wait(tested, monkeypatch)
    tested.doubt()
    await ended(tested)
    assert isinstance(link.lost.result(), Deaf)
    assert clock() - began == 15.0
    assert link.asked == []


async def test_further_doubts_start_no_second_test(clock: Clock) -> None:
    link = FakeLink(clock)
    link.answering = lambda: True
    tested = Hearing(link)
    for _ in range(3):
        tested.doubt()
    await ended(tested)
    assert len(link.asked) == 1
    tested.doubt()
    await ended(tested)
    assert len(link.asked) == 2


async def test_a_closed_connection_is_not_tested(clock: Clock) -> None:
    link = FakeLink(clock)
    link.stopped = asyncio.get_running_loop().create_future()
    tested = Hearing(link)
    tested.doubt()
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    tested.stop()
    with pytest.raises(asyncio.CancelledError):
        await ended(tested)
    assert len(link.asked) == 1
