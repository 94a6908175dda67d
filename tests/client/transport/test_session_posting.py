"""Requests whose answers are not awaited are sent one after the other."""

from __future__ import annotations

import threading
from typing import Any

from nats.aio.client import Client

from django_nats.client.protocol.steps import Lane, Request
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.session import Session
from tests.client.lanes import (
    PATIENT,
    TIMEOUT,
    ask,
    listen,
    soon,
)


async def test_posted_requests_are_sent_one_after_the_other(
    session: Session, service: Client
) -> None:
    received: list[Any] = []

    async def note(message: Any) -> None:
        received.append(message)

    def data() -> list[bytes]:
        return [message.data for message in received]

    await listen(service, "posted", note)
    lane = Lane("posted", 60.0)
    session.post(*(Request(lane, "posted", each) for each in (b"first", b"second")))
    session.post(Request(lane, "posted", b"other"))
    assert await soon(lambda: data() == [b"first", b"other"])
    await received[0].respond(b"{}")
    assert await soon(lambda: data() == [b"first", b"other", b"second"])
    for message in received[1:]:
        await message.respond(b"{}")
    assert await soon(lambda: session.waiters == 0)


async def test_post_does_not_wait(session: Session, service: Client) -> None:
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)
        await message.respond(b"{}")

    await listen(service, "posted", note)
    lane = Lane("posted", 60.0)
    held = threading.Event()
    loop_thread.call(held.wait)  # post() would not return if it waited for the answer
    session.post(Request(lane, "posted", b"one"))
    held.set()
    assert await soon(lambda: received == [b"one"])
    assert await soon(lambda: session.waiters == 0)


async def test_a_request_posted_while_the_circuit_is_open_is_dropped(
    session: Session, service: Client
) -> None:
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "posted", note)
    lane = Lane("posted", TIMEOUT)
    lane.fault = "the circuit is open"
    session.post(Request(lane, "posted", b"dropped"))
    await ask(session, PATIENT, "nobody")
    await service.flush()
    assert (received, session.waiters) == ([], 0)
