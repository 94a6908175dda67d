"""Frames that cannot be sent, and requests that wait for room in the connection's buffer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from nats.aio.client import Client

from django_nats.client import drivers
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import connection
from django_nats.client.transport.connection import HIGH_WATER_BYTES
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.session import Session
from django_nats.client.transport.waiter import Waiter
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, OutcomeUnknown
from tests.client.lanes import PATIENT, TIMEOUT, ask, asking, listen, session_of, soon
from tests.support.answers import Clock


async def test_frames_that_the_server_would_not_accept_are_not_sent(
    session: Session,
) -> None:
    lane = PATIENT
    await ask(session, lane, "warm-up")
    same = session._connection
    with pytest.raises(ValueError, match="max_payload"):
        await ask(session, lane, "a", b"x" * (session.max_payload + 1))
    header = b"NATS/1.0\r\nA: b\r\n\r\n"
    payload = b"x" * (session.max_payload - len(header) + 1)
    with pytest.raises(ValueError, match="headers"):
        await drivers.arun(session, asking(lane, "a", payload, header=header))
    with pytest.raises(ValueError, match="too long"):
        await ask(session, lane, "a" * 4090)
    # At the limits they are sent.
    await ask(session, lane, "a", b"x" * session.max_payload)
    await ask(session, lane, "a" * 3950)
    assert session._connection is same
    assert session.waiters == 0


def test_a_frame_too_large_among_others_is_refused_alone(session: Session) -> None:
    lane = PATIENT

    def three() -> Steps[list[Any]]:
        big = Request(lane, "a", b"x" * (session.max_payload + 1))
        return (yield [Request(lane, "a"), big, Request(lane, "b")])

    first, second, third = drivers.run(session, three())
    assert isinstance(first, Reply)
    assert isinstance(second, ValueError)
    assert isinstance(third, Reply)


def test_requests_that_do_not_fit_into_the_buffer_are_sent_later(session: Session) -> None:
    """All are sent, though they are several times as large as the transport's buffer."""
    lane = PATIENT
    payload = b"x" * (512 * 1024)
    count = 4 * HIGH_WATER_BYTES // len(payload)
    ended: list[Reply] = []

    def send() -> None:
        ended.append(drivers.run(session, asking(lane, "nobody", payload)))

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == count


def in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop send requests, as it does while other requests are waiting."""
    monkeypatch.setattr(connection.Connection, "send_directly", lambda self, waiter: False)


async def test_a_request_without_room_is_refused_in_time(
    session: Session, service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers, but reads more slowly than the client writes."""
    await ask(session, PATIENT, "warm-up")
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "room", note)
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", 0)
    started = time.monotonic()
    with pytest.raises(NotSent, match="accepts no more bytes"):
        await ask(session, Lane("room", TIMEOUT), "room")
    assert time.monotonic() - started >= TIMEOUT
    monkeypatch.undo()
    await ask(session, PATIENT, "after")
    await service.flush()
    assert (received, session.waiters) == ([], 0)


@pytest.mark.usefixtures("without_pings")
async def test_a_request_that_waits_for_room_fails_when_the_server_falls_silent(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch, waiting_clock: Clock
) -> None:
    session = session_of(own_server, token=own_server.token)
    await ask(session, PATIENT, "warm-up")
    own_server.pause()
    sent = asyncio.ensure_future(ask(session, Lane("sent", TIMEOUT), "a"))
    assert await soon(lambda: session.waiters == 1)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", 0)
    patient = asyncio.ensure_future(ask(session, Lane("patient", 3600.0), "b"))
    assert await soon(lambda: session.waiters == 2)
    waiting_clock.now += 1.1 * TIMEOUT
    with pytest.raises(NotSent, match="does not answer"):
        await patient
    with pytest.raises(OutcomeUnknown):
        await sent


async def test_a_request_just_after_the_connection_is_lost_is_not_sent(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the session notices the loss, no request may be written to the dead socket."""
    in_company(monkeypatch)
    await ask(session, PATIENT, "warm-up")
    answered = threading.Event()
    waiter = Waiter([Request(Lane("late", 60.0), "a")], answered.set)

    def lose() -> None:
        assert session._connection is not None
        session.submit(waiter)
        session._connection.lose(ConnectionError("cut"))

    loop_thread.call(lose)
    assert await soon(answered.is_set)
    assert isinstance(waiter.answers[0], NotSent)
    assert await soon(lambda: session.connected)  # for the next test


async def test_a_request_abandoned_before_it_is_sent_is_never_sent(
    session: Session, service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_company(monkeypatch)
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "noted", note)
    lane = PATIENT
    given_up = Waiter([Request(lane, "noted", b"given up")], lambda: None)
    wanted = Waiter([Request(lane, "noted", b"wanted")], lambda: None)
    held = threading.Event()
    loop_thread.call(held.wait)
    session.submit(given_up)
    session.submit(wanted)
    session.abandon(given_up)
    held.set()
    assert await soon(lambda: bool(received))
    assert received == [b"wanted"]
    session.abandon(wanted)
    assert await soon(lambda: session.waiters == 0)


async def test_a_request_abandoned_while_it_waits_for_room_does_not_affect_others(
    session: Session, monkeypatch: pytest.MonkeyPatch, waiting_clock: Clock
) -> None:
    await ask(session, PATIENT, "warm-up")
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", 0)
    given_up = asyncio.ensure_future(ask(session, Lane("hasty", TIMEOUT), "a"))
    wanted = asyncio.ensure_future(ask(session, PATIENT, "nobody"))
    assert await soon(lambda: session.waiters == 2)
    held, holding = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        held.wait()

    loop_thread.call(hold)
    assert await soon(holding.is_set)
    given_up.cancel()
    await asyncio.wait([given_up])
    # The deadline of the abandoned request has passed, but has not been checked.
    waiting_clock.now += 2 * TIMEOUT
    held.set()
    assert await soon(lambda: session.waiters == 1)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", HIGH_WATER_BYTES)
    assert b" 503" in (await wanted).header


async def test_nothing_is_left_when_all_waiting_requests_are_abandoned(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(session, PATIENT, "warm-up")
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", 0)
    given_up = asyncio.ensure_future(ask(session, Lane("hasty", 60.0), "a"))
    assert await soon(lambda: session.waiters == 1)
    given_up.cancel()
    assert await soon(lambda: session.waiters == 0)
    monkeypatch.undo()
    assert b" 503" in (await ask(session, PATIENT, "nobody")).header
    assert caplog.records == []
