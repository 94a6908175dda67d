"""The circuits of the connection and of each lane, with services that need no JetStream."""

from __future__ import annotations

import asyncio
import logging
import select
import threading
import time
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import drivers
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.transport import lane_circuits, timeouts
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.loop import LoopThread
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.session import Session
from django_nats.client.transport.waiter import Waiter
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, OutcomeUnknown
from tests.client.lanes import (
    PATIENT,
    TIMEOUT,
    ask,
    asking,
    ignore,
    listen,
    session_of,
    soon,
    time_out,
)
from tests.support.answers import Clock


async def test_only_the_mute_lane_is_down_until_it_is_answered(
    session: Session,
    service: Client,
    caplog: pytest.LogCaptureFixture,
    waiting_clock: Clock,
) -> None:
    caplog.set_level(logging.DEBUG, "django_nats")
    mute, other = Lane("mute", TIMEOUT), Lane("other", TIMEOUT)
    mute.probe = Request(PATIENT, "mute", b"probe")
    held = []

    async def hold(message: Any) -> None:
        held.append(message)

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "mute", hold)
    await listen(service, "other", answer)

    waiting = asyncio.ensure_future(ask(session, mute, "mute"))
    assert await soon(lambda: bool(held))
    waiting_clock.now += 0.9 * TIMEOUT
    await ask(session, other, "other")
    assert not waiting.done()
    waiting_clock.now += 0.15 * TIMEOUT
    with pytest.raises(OutcomeUnknown, match="mute"):
        await waiting
    for _ in range(20):
        with pytest.raises(NotSent, match="mute does not answer"):
            await ask(session, mute, "mute")
    assert await soon(lambda: len(held) == 2)
    assert [message.data for message in held] == [b"", b"probe"]
    assert (await ask(session, other, "other")).payload == b"{}"
    assert session.connected

    await held.pop().respond(b"{}")
    assert await soon(lambda: mute.fault is None)
    waiting = asyncio.ensure_future(ask(session, mute, "mute"))
    assert await soon(lambda: len(held) == 2)
    await held.pop().respond(b"{}")
    assert (await waiting).payload == b"{}"
    messages = [record.getMessage() for record in caplog.records if record.name == "django_nats"]
    assert messages == ["mute does not answer at the moment", "mute answers again"]


async def test_a_mute_lane_beside_answering_ones_is_not_a_silent_server(
    session: Session, service: Client, waiting_clock: Clock
) -> None:
    """No ping is sent to a server whose bytes keep arriving."""
    lanes = PATIENT, Lane("mute", TIMEOUT)
    lanes[1].probe = Request(lanes[1], "mute")

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "chatty", answer)
    await listen(service, "mute", ignore)
    waiting = asyncio.ensure_future(ask(session, lanes[1], "mute"))
    while not waiting.done():
        await ask(session, lanes[0], "chatty")
        waiting_clock.now += 0.01
    with pytest.raises(OutcomeUnknown):
        await waiting
    assert lanes[1].fault
    assert session.connected
    lanes[1].probe = None  # ends the probing


async def test_in_a_list_the_lane_without_an_answer_goes_down(
    session: Session, service: Client, waiting_clock: Clock
) -> None:
    good, mute = Lane("good", TIMEOUT), Lane("mute", TIMEOUT)
    good.probe = mute.probe = Request(mute, "mute")
    asked = []

    async def answer(message: Any) -> None:
        await message.respond(b"{}")
        asked.append("good")

    async def note(message: Any) -> None:
        asked.append("mute")

    await listen(service, "good", answer)
    await listen(service, "mute", note)

    def both() -> Steps[list[Any]]:
        return (yield [Request(good, "good"), Request(mute, "mute")])

    waiting = asyncio.ensure_future(drivers.arun(session, both()))
    assert await soon(lambda: sorted(asked) == ["good", "mute"])
    assert session.connection is not None
    (waiter,) = session.connection.outstanding.waiters()
    assert await soon(lambda: waiter.unanswered == 1)
    await time_out(session, waiting_clock)
    first, second = await waiting
    assert first.payload == b"{}"
    assert isinstance(second, OutcomeUnknown)
    assert (good.fault, bool(mute.fault)) == (None, True)
    mute.probe = None


async def test_a_lane_is_probed_only_after_a_pause(
    session: Session, service: Client, waiting_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several replicas may be mute. Without the pause, the next call may reach it again."""
    monkeypatch.setattr(lane_circuits, "_PROBE_PAUSE_S", 3600.0)
    lane = Lane("one in three", TIMEOUT)
    lane.probe = Request(PATIENT, "speaking")
    asked = []

    async def note(message: Any) -> None:
        asked.append(message.subject)

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    for subject, heard in (("speaking", note), ("mute", note), ("after", answer)):
        await listen(service, subject, heard)
    waiting = asyncio.ensure_future(ask(session, lane, "mute"))
    assert await soon(lambda: bool(asked))
    await time_out(session, waiting_clock)
    with pytest.raises(OutcomeUnknown):
        await waiting
    for _ in range(4):
        with pytest.raises(NotSent):
            await ask(session, lane, "mute")
    await ask(session, PATIENT, "after")  # the service has received all earlier requests
    assert asked == ["mute"]


@pytest.mark.usefixtures("without_pings")
async def test_a_server_that_stops_just_after_an_answer_is_silent(
    own_server: NatsServer, waiting_clock: Clock
) -> None:
    """Otherwise each lane would have to time out by itself."""
    session = session_of(own_server, token=own_server.token)
    lane, other = Lane("first", TIMEOUT), PATIENT
    lane.probe = Request(lane, "mute")
    service = await nats.connect(
        own_server.url, token=own_server.token, allow_reconnect=False, connect_timeout=60
    )
    asked = asyncio.Event()

    async def note(message: Any) -> None:
        asked.set()

    await listen(service, "mute", note)
    await ask(session, other, "nobody")
    waiting = asyncio.ensure_future(ask(session, lane, "mute"))
    await asked.wait()
    waiting_clock.now += TIMEOUT / 6
    await ask(session, other, "nobody")
    own_server.pause()
    waiting_clock.now += TIMEOUT
    with pytest.raises(OutcomeUnknown):
        await waiting
    with pytest.raises(NotSent):
        await ask(session, other, "nobody")
    assert lane.fault is None
    own_server.resume()
    await service.close()


async def test_calls_time_out_even_if_the_loop_is_always_held_up(
    session: Session, service: Client
) -> None:
    await listen(service, "mute", ignore)
    await ask(session, PATIENT, "warm-up")
    busy = True

    def hold_up() -> None:
        time.sleep(1.2 * timeouts.LATE_S)  # real time: the loop is blocked
        if busy:
            loop_thread.call(hold_up)

    loop_thread.call(hold_up)
    try:
        with pytest.raises(OutcomeUnknown):
            await ask(session, Lane("mute", TIMEOUT), "mute")
    finally:
        busy = False
    assert await soon(lambda: session.connected)


async def test_no_responders_is_an_answer(session: Session) -> None:
    reply = await ask(session, PATIENT, "nobody")
    assert b" 503" in reply.header


async def test_a_loop_that_is_held_up_does_not_time_out_calls(
    session: Session, service: Client, waiting_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is in the socket when the loop continues, long after the deadline."""
    tick = 3600.0  # no sweep runs by itself beside the one that the test runs
    monkeypatch.setattr(timeouts, "_TICK_S", tick)
    lane = Lane("slow", TIMEOUT)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait()
        assert session.connection is not None
        session.connection._sweep.run()  # the sweep may run before the answer is read

    async def answer(message: Any) -> None:
        # The loop is blocked before the answer is sent, and until after the deadline.
        loop_thread.call(hold)
        await asyncio.to_thread(held.wait)
        await message.respond(b"late")
        await service.flush()
        assert session.connection is not None
        await asyncio.to_thread(select.select, session.connection.descriptors()[:1], [], [])
        waiting_clock.now += tick + 2 * TIMEOUT
        go_on.set()

    await listen(service, "slow", answer)
    reply = await ask(session, lane, "slow")
    assert reply.payload == b"late", reply


@pytest.mark.parametrize("by", ["a thread", "the loop's thread"])
async def test_a_suspended_lane_is_down_until_its_probe_is_answered(
    session: Session, service: Client, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    lane = Lane("led", 60.0)
    lane.probe = Request(Lane("probe", 60.0), "led")
    await ask(session, PATIENT, "nobody")
    if by == "a thread":
        session.suspend(lane, "led has no leader")
        session.suspend(lane, "led has no leader")
    else:
        session.call(lambda: session.suspend(lane, "led has no leader"))
        assert await soon(lambda: lane.fault is not None)
    for _ in range(20):
        with pytest.raises(NotSent, match="led has no leader"):
            await ask(session, lane, "led")

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "led", answer)
    assert await soon(lambda: lane.fault is None)
    assert (await ask(session, lane, "led")).payload == b"{}"
    messages = [record.getMessage() for record in caplog.records if record.name == "django_nats"]
    assert messages == ["led has no leader", "led answers again"]


def test_a_lane_suspended_at_a_fork_is_used_by_the_child() -> None:
    """Only the parent's loop would send its probe."""
    session, lane = _connected_in_name()
    session.suspend(lane, "led has no leader")
    assert lane.fault is not None
    session.after_fork()
    assert lane.fault is None


def test_a_lane_that_times_out_at_a_fork_is_used_by_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread forks after the circuit has opened, and before the lane is probed."""
    session = Session(ConnectionConfig(("nats://127.0.0.1:1",)), LoopThread())
    lane = Lane("mute", TIMEOUT)
    lane.probe = Request(PATIENT, "mute")
    answering: Any = SimpleNamespace(silent_since=lambda seconds: False, descriptors=lambda: ())
    session._connection = answering
    monkeypatch.setattr(session._lane_circuits, "probe", lambda lane: session.after_fork())
    session._timed_out(lane)
    assert lane.fault is None


@pytest.mark.parametrize("fault", ["no connection", "lost just now", "a silent server"])
def test_a_lane_is_not_suspended_for_a_fault_of_the_connection(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, lane = _connected_in_name(lost=fault == "lost just now")
    if fault == "no connection":
        session._connection = None
    elif fault == "a silent server":
        session._fault = "NATS does not answer"
    session.suspend(lane, "led has no leader")
    assert lane.fault is None
    assert caplog.records == []


def _connected_in_name(lost: bool = False) -> tuple[Session, Lane]:
    """Return a session whose connection sends nothing, and a lane with a probe."""
    held: Any = SimpleNamespace(alive=True, call=lambda function: None)
    session = Session(ConnectionConfig(("nats://127.0.0.1:1",)), held)
    connection: Any = SimpleNamespace(lost=SimpleNamespace(done=lambda: lost), descriptors=list)
    session._connection = connection
    lane = Lane("led", TIMEOUT)
    lane.probe = Request(Lane("probe", TIMEOUT), "led")
    return session, lane


def test_a_lane_is_not_suspended_without_a_loop_to_probe_it() -> None:
    session, lane = _connected_in_name()
    session._thread.alive = False  # type: ignore[misc]
    session.suspend(lane, "led has no leader")
    assert lane.fault is None


async def test_a_session_reconnects_though_another_wait_for_the_sockets_end_was_cancelled(
    session: Session,
) -> None:
    await ask(session, PATIENT, "nobody")
    epoch = session.epoch

    def lose() -> None:
        connection, loop = session.connection, asyncio.get_running_loop()
        assert connection is not None
        waiting = loop.create_task(connection._transport.wait_closed())
        loop.call_soon(waiting.cancel)
        loop.call_soon(connection.lose, ConnectionResetError("lost"))

    session.call(lose)
    assert await soon(lambda: session.epoch > epoch and session.connected)


# The end of the loop -------------------------------------------------------------------------


def test_a_request_that_is_queued_as_the_loop_ends_is_sent_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flushes: list[object] = []
    held: Any = SimpleNamespace(alive=True, retired=False, call=flushes.append)
    session = Session(ConnectionConfig(("nats://127.0.0.1:1",)), held)
    before, after = (Waiter([Request(PATIENT, "subject")], lambda: None) for _ in range(2))
    session.submit(before)

    def submit() -> None:  # another thread, when the queue has been looked through
        thread = threading.Thread(target=session.submit, args=(after,))
        thread.start()
        thread.join()

    monkeypatch.setattr(session._lane_circuits, "reset", submit)
    session.forget()
    assert isinstance(before.answers[0], NotSent)
    assert after.unanswered
    assert len(flushes) == 2


def test_the_repr_of_a_session_shows_no_secret(session: Session, server: NatsServer) -> None:
    drivers.run(session, asking(PATIENT, "a"))
    assert repr(session) == f"<Session {server.url}>"
    assert server.token not in repr(session.config)
    fresh = Session(ConnectionConfig(("nats://elsewhere:4222",), token="secret"), loop_thread)
    assert repr(fresh) == "<Session nats://elsewhere:4222 (not connected)>"
    assert (fresh.server, fresh.max_payload, fresh.waiters) == ("", 1024 * 1024, 0)


def test_a_fault_may_end_while_a_request_is_refused_for_it() -> None:
    class Recovering(Session):
        """Another thread ends the fault right after it has been read once."""

        @property
        def _fault(self) -> str | None:  # type: ignore[override]
            return self.faults.pop() if self.faults else None

        @_fault.setter
        def _fault(self, fault: str | None) -> None:
            self.faults = [] if fault is None else [fault]

    session = Recovering(ConnectionConfig(("nats://127.0.0.1:1",)), loop_thread)
    session._fault = "the server is away"
    with pytest.raises(NotSent, match="the server is away"):
        session.submit(Waiter([Request(PATIENT, "nobody")], lambda: None))
