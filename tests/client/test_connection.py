"""The multiplexer: whose reply is whose, and what becomes of what nobody asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import bridge
from django_nats.client.config import ConnectionConfig
from django_nats.client.session import Session
from django_nats.client.steps import Lane, Request, Steps
from django_nats.client.waiter import Waiter
from django_nats.client.wire import Reply
from django_nats.devserver import NatsServer
from django_nats.exceptions import OutcomeUnknown

LANE = Lane("a lane", 0.3)
END = Reply(b"NATS/1.0 204 EOB\r\n\r\n", b"")


@pytest.fixture
def session(server: NatsServer) -> Session:
    return bridge.session(ConnectionConfig((server.url,), token=server.token, name="multiplexer"))


@pytest.fixture
async def service(server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(server.url, token=server.token)
    yield client
    await client.close()


async def listen(
    service: Client, subject: str, answer: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """Subscribe, and wait until the server knows of it."""
    await service.subscribe(subject, cb=answer)
    # nats-py's first ping may overtake the subscription.
    await service.flush()
    await service.flush()


async def ask(session: Session, *requests: Request) -> list[Any]:
    def steps() -> Steps[list[Any]]:
        return (yield list(requests))

    return await bridge.arun(session, steps())


async def test_replies_in_any_order_find_their_requests(session: Session, service: Client) -> None:
    waiting: list[Any] = []

    async def answer(message: Any) -> None:
        waiting.append(message)
        if len(waiting) == 20:
            for each in reversed(waiting):
                await each.respond(each.data)

    await listen(service, "order", answer)
    requests = [Request(LANE, "order", str(number).encode()) for number in range(20)]
    answers = await ask(session, *requests)
    assert [each.payload for each in answers] == [str(number).encode() for number in range(20)]


async def test_a_second_answer_is_nobodys(session: Session, service: Client) -> None:
    async def answer(message: Any) -> None:
        for turn in range(3):
            await message.respond(b"%b %d" % (message.data, turn))

    await listen(service, "twice", answer)
    for number in range(5):
        (reply,) = await ask(session, Request(LANE, "twice", b"%d" % number))
        assert reply.payload == b"%d 0" % number
    assert session.waiters == 0


async def test_what_cannot_be_a_reply_does_no_harm(
    session: Session, service: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in nats-py's reader would leave the connection deaf."""
    await ask(session, Request(LANE, "warm-up"))
    connection = session._connection
    assert connection is not None
    for name in ("junk", "1e9", "-1", "99999999999999999999"):
        await service.publish(connection._inbox.decode() + name, b"?")
    await service.flush()
    (reply,) = await ask(session, Request(LANE, "nobody"))
    assert b" 503" in reply.header
    assert session._connection is connection
    assert [each.levelno for each in caplog.records if "handle a reply" in each.message] == [
        logging.ERROR,
        logging.ERROR,
    ]


async def test_gathering_ends_with_a_status(session: Session, service: Client) -> None:
    async def answer(message: Any) -> None:
        for number in range(3):
            await message.respond(b"%d" % number)
        await service.publish(message.reply, headers={"Status": "204"})

    # A status line is the server's own: nobody listens to this one.
    (replies,) = await ask(session, Request(LANE, "nobody", gather=10))
    assert [b" 503" in each.header for each in replies] == [True]
    await listen(service, "several", answer)
    (replies,) = await ask(session, Request(LANE, "several", gather=3))
    assert [each.payload for each in replies] == [b"0", b"1", b"2"]
    assert session.waiters == 0


async def test_gathering_that_does_not_end_times_out_after_the_last_reply(
    session: Session, service: Client
) -> None:
    async def answer(message: Any) -> None:
        for _ in range(4):
            await message.respond(b"more")
            await asyncio.sleep(LANE.timeout / 2)

    await listen(service, "endless", answer)
    started = time.monotonic()
    (error,) = await ask(session, Request(LANE, "endless", gather=10))
    assert isinstance(error, OutcomeUnknown)
    assert time.monotonic() - started > 2 * LANE.timeout
    assert session.waiters == 0


async def test_a_subscription_of_its_own_goes_with_its_request(
    session: Session, service: Client
) -> None:
    inboxes: list[str] = []

    async def answer(message: Any) -> None:
        inboxes.append(message.reply)
        await message.respond(b"first")
        if message.data == b"two":
            await message.respond(b"second")

    await listen(service, "pull", answer)
    (replies,) = await ask(session, Request(LANE, "pull", b"two", gather=2, inbox=True))
    assert [each.payload for each in replies] == [b"first", b"second"]
    (error,) = await ask(session, Request(LANE, "pull", b"one", gather=2, inbox=True))
    assert isinstance(error, OutcomeUnknown)
    for inbox in inboxes:  # whoever asks there is told by the server that nobody listens
        with pytest.raises(nats.errors.NoRespondersError):
            await service.request(inbox, b"?", timeout=2)


# One caller's wait ---------------------------------------------------------------------------


def _waiter(*gathers: int) -> tuple[Waiter, list[str]]:
    woken: list[str] = []
    requests = [Request(LANE, f"r{number}", gather=most) for number, most in enumerate(gathers)]
    return Waiter(requests, lambda: woken.append("woken")), woken


def test_it_is_woken_once_with_every_answer() -> None:
    waiter, woken = _waiter(0, 2)
    one, two = Reply(b"", b"one"), Reply(b"", b"two")
    assert waiter.gather(1, one, 2) is None
    waiter.answer(0, one)
    assert woken == []
    waiter.answer(1, waiter.gather(1, two, 2) or END)
    assert (waiter.answers, woken) == ([one, [one, two]], ["woken"])
    waiter.fail(OutcomeUnknown())
    assert (waiter.answers, woken) == ([one, [one, two]], ["woken"])


def test_only_what_is_open_fails() -> None:
    waiter, woken = _waiter(0, 0, 5, 5, 1)
    reply, error = Reply(b"", b"x"), OutcomeUnknown()
    waiter.answer(1, reply)
    assert waiter.gather(2, reply, 5) is None
    for index, last, most in ((3, END, 5), (4, reply, 1)):
        waiter.answer(index, waiter.gather(index, last, most) or reply)
    assert waiter.first_open is waiter.requests[0]
    waiter.fail(error)
    assert waiter.answers == [error, reply, error, [END], [reply]]
    assert woken == ["woken"]


def test_the_first_that_is_open() -> None:
    waiter, _ = _waiter(0, 3, 0)
    waiter.answer(0, END)
    assert waiter.gather(1, Reply(b"", b"x"), 3) is None
    assert waiter.first_open is waiter.requests[1]
    waiter.answer(1, waiter.gather(1, END, 3) or END)
    assert waiter.first_open is waiter.requests[2]
