"""The multiplexer: whose reply is whose, and what becomes of what nobody asked for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import bridge, connection
from django_nats.client.config import ConnectionConfig
from django_nats.client.session import Session
from django_nats.client.steps import Lane, Request, Steps
from django_nats.client.waiter import Waiter
from django_nats.client.wire import Reply
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import NotSent, OutcomeUnknown
from tests.support.proxy import Proxy

LANE = Lane("a lane", 0.3)
PATIENT = Lane("a patient lane", 10.0)  # for what is to be answered
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
    requests = [Request(PATIENT, "order", str(number).encode()) for number in range(20)]
    answers = await ask(session, *requests)
    assert [each.payload for each in answers] == [str(number).encode() for number in range(20)]


async def test_a_second_answer_is_nobodys(session: Session, service: Client) -> None:
    async def answer(message: Any) -> None:
        for turn in range(3):
            await message.respond(b"%b %d" % (message.data, turn))

    await listen(service, "twice", answer)
    for number in range(5):
        (reply,) = await ask(session, Request(PATIENT, "twice", b"%d" % number))
        assert reply.payload == b"%d 0" % number
    assert session.waiters == 0


async def test_what_cannot_be_a_reply_does_no_harm(
    session: Session, service: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception while reading would leave the connection deaf."""
    await ask(session, Request(PATIENT, "warm-up"))
    connection = session._connection
    assert connection is not None
    for name in ("junk", "1e9", "-1", "99999999999999999999"):
        await service.publish(connection._inbox.decode() + name, b"?")
    await service.flush()
    (reply,) = await ask(session, Request(PATIENT, "nobody"))
    assert b" 503" in reply.header
    assert session._connection is connection
    assert caplog.records == []


async def test_gathering_ends_with_a_status(session: Session, service: Client) -> None:
    async def answer(message: Any) -> None:
        for number in range(3):
            await message.respond(b"%d" % number)
        await service.publish(message.reply, headers={"Status": "204"})

    # A status line is the server's own: nobody listens to this one.
    (replies,) = await ask(session, Request(PATIENT, "nobody", gather=10))
    assert [b" 503" in each.header for each in replies] == [True]
    await listen(service, "several", answer)
    (replies,) = await ask(session, Request(PATIENT, "several", gather=3))
    assert [each.payload for each in replies] == [b"0", b"1", b"2"]
    assert session.waiters == 0


async def test_gathering_that_does_not_end_times_out_after_the_last_reply(
    session: Session, service: Client
) -> None:
    lane = Lane("one that is answered in pieces", 1.0)

    async def answer(message: Any) -> None:
        for _ in range(4):
            await message.respond(b"more")
            await asyncio.sleep(lane.timeout / 2)

    await listen(service, "endless", answer)
    started = time.monotonic()
    (error,) = await ask(session, Request(lane, "endless", gather=10))
    assert isinstance(error, OutcomeUnknown)
    assert time.monotonic() - started > 2 * lane.timeout
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
    (replies,) = await ask(session, Request(PATIENT, "pull", b"two", gather=2, inbox=True))
    assert [each.payload for each in replies] == [b"first", b"second"]
    (error,) = await ask(session, Request(LANE, "pull", b"one", gather=2, inbox=True))
    assert isinstance(error, OutcomeUnknown)
    for inbox in inboxes:
        await _wait_until_deserted(service, inbox)


async def _wait_until_deserted(service: Client, inbox: str) -> None:
    """Ask until the server, once it has been told itself, says that nobody listens there."""
    while True:
        try:
            await service.request(inbox, b"?", timeout=0.2)
        except nats.errors.NoRespondersError:
            return
        except nats.errors.TimeoutError:
            pass


async def test_what_cannot_be_made_a_frame_fails_alone(session: Session, service: Client) -> None:
    """Whoever shares its write is served, and nothing is left that would wait for ever."""
    received = []

    async def note(message: Any) -> None:
        received.append(message)

    await listen(service, "with-it", note)
    await ask(session, Request(PATIENT, "warm-up"))
    same = session._connection
    broken = Request(PATIENT, "nobody", "text")  # type: ignore[arg-type]  # as a bug would have it
    held = threading.Event()
    bridge._thread.call(held.wait)  # until all of them are queued, and go out together
    asked = [
        asyncio.ensure_future(ask(session, *requests))
        for requests in (
            [Request(PATIENT, "nobody")],
            [
                Request(PATIENT, "with-it", gather=2, inbox=True),
                broken,
                Request(PATIENT, "with-it"),
            ],
            [Request(PATIENT, "nobody")],
        )
    ]
    await asyncio.sleep(0)
    held.set()
    before, culprit, after = await asyncio.wait_for(asyncio.gather(*asked), 5)
    assert [type(each) for each in before + after] == [Reply, Reply]
    assert [type(each) for each in culprit] == [NotSent] * 3
    assert isinstance(culprit[0].__cause__, TypeError)
    await service.flush()
    assert (received, session._connection, session.waiters) == ([], same, 0)


# A slow link -------------------------------------------------------------------------------


class SlowLink(Proxy):
    """Takes so many bytes a second from a client, and lets few pile up in its own buffers."""

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server.port)
        self.token = server.token
        self.rate = 8e6
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                if not replies:
                    time.sleep(len(data) / self.rate)
                self._flowing.wait()
                sink.sendall(data)


@pytest.fixture
def link() -> Iterator[SlowLink]:
    with NatsServer(config="max_payload: 64MB") as server:
        link = SlowLink(server)
        with link:
            yield link
            bridge.close()


async def _over(link: SlowLink) -> Session:
    session = bridge.session(ConnectionConfig((link.url,), token=link.token))
    await ask(session, Request(LANE, "warm-up"))
    return session


BIG = Request(LANE, "nobody", b"x" * 8_000_000)


@pytest.mark.parametrize("high_water", [connection.HIGH_WATER, 1024 * 1024])
async def test_bytes_that_are_still_on_their_way_are_waited_for(
    link: SlowLink, monkeypatch: pytest.MonkeyPatch, high_water: int
) -> None:
    """For three times the timeout: by what is big, and by what is written or queued behind it."""
    lane = Lane("a slow lane", 1.0)
    monkeypatch.setattr(connection, "HIGH_WATER", high_water)
    monkeypatch.setattr(connection, "PING_INTERVAL", lane.timeout / 3)
    session = await _over(link)
    link.rate = len(BIG.payload) / (3 * lane.timeout)
    same = session._connection
    started = time.monotonic()
    behind = [ask(session, Request(lane, "nobody")) for _ in range(3)]
    answers = await asyncio.gather(ask(session, Request(lane, "nobody", BIG.payload)), *behind)
    assert time.monotonic() - started > 2 * lane.timeout
    assert [type(answer) for (answer,) in answers] == [Reply] * 4
    assert session._connection is same


@pytest.mark.usefixtures("without_pings")
@pytest.mark.parametrize("trouble", ["stopped", "too slow"])
async def test_bytes_that_stay_where_they_are_are_not_waited_for(
    link: SlowLink, trouble: str
) -> None:
    session = await _over(link)
    asked = asyncio.gather(ask(session, BIG), ask(session, Request(LANE, "nobody")))
    await asyncio.wait([asked], timeout=LANE.timeout / 2)
    if trouble == "stopped":
        link.freeze()
    else:
        link.rate = 500e3  # bytes a second
    started = time.monotonic()
    answers = await asked
    assert [type(answer) for (answer,) in answers] == [OutcomeUnknown] * 2
    assert time.monotonic() - started < 2 * LANE.timeout + 5
    assert session.waiters == 0


async def test_an_answer_that_is_missing_is_not_waited_for_while_others_write(
    session: Session, service: Client
) -> None:
    """Bytes that leave are no reason to wait for the answer to some that left before."""
    written = asyncio.Event()

    async def ignore(message: Any) -> None:
        written.set()

    await listen(service, "mute", ignore)
    started = time.monotonic()
    waiting = asyncio.ensure_future(ask(session, Request(LANE, "mute")))
    await written.wait()
    payload = b"x" * (session.max_payload // 2)
    while not waiting.done():
        assert time.monotonic() - started < 3 * LANE.timeout + 5
        await ask(session, Request(LANE, "nobody", payload))
    assert isinstance(waiting.result()[0], OutcomeUnknown)


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


async def test_a_waiter_that_is_answered_while_it_is_timed_out_ends_no_timeouts(
    session: Session, service: Client
) -> None:
    """A caller that reads for itself may answer it between the sweep's look and its verdict."""

    async def ignore(message: Any) -> None: ...

    await listen(service, "silence", ignore)
    await ask(session, Request(LANE, "warm-up"))
    connection = session._connection
    assert connection is not None
    waiter = Waiter([Request(LANE, "overdue")], lambda: None)
    connection.outstanding.enlist(waiter, [], connection.max_payload)
    (key,) = waiter.keys
    held = connection.outstanding.waiters

    def answered_meanwhile() -> set[Waiter]:
        waiters = held()
        waiter.deadline = 0
        connection.outstanding.take(b"1", Reply(b"", b"", b"", key))
        return waiters

    connection.outstanding.waiters = answered_meanwhile  # type: ignore[method-assign]
    swept = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sweep() -> None:
        connection._sweep.run(patient=False)
        connection.outstanding.waiters = held  # type: ignore[method-assign]
        loop.call_soon_threadsafe(swept.set)

    bridge._thread.call(sweep)
    await asyncio.wait_for(swept.wait(), 5)
    assert isinstance(waiter.answers[0], Reply)
    assert LANE.fault is None
    (answer,) = await ask(session, Request(LANE, "silence"))
    assert isinstance(answer, OutcomeUnknown)  # who comes next is still told in time


async def test_nobody_writes_for_itself_while_the_transport_has_bytes_in_hand(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's transport takes its rest out of its buffer while it sends, and looks empty then."""
    await ask(session, Request(LANE, "warm-up"))
    connection = session._connection
    assert connection is not None
    # A look that is still to come would take back what is said here.
    await asyncio.to_thread(eventually, lambda: not connection._handed, time.monotonic() + 10)
    monkeypatch.setattr(connection, "_buffered", lambda: 0)
    monkeypatch.setattr(connection, "_handed", True)
    waiter = Waiter([Request(LANE, "nobody")], lambda: None)
    assert not connection.carry(waiter)
    monkeypatch.setattr(connection, "_handed", False)
    assert connection.carry(waiter) is (connection._shared is not None)


async def test_who_says_that_the_server_has_gone_is_not_taken_for_a_signal(
    own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    session = bridge.session(ConnectionConfig((own_server.url,), token=own_server.token))
    await ask(session, Request(LANE, "warm-up"))
    lost = session._connection
    assert lost is not None
    own_server.kill()
    assert await asyncio.to_thread(
        eventually, lambda: session._connection is not lost, time.monotonic() + 5
    )
    assert "interrupted" not in caplog.text
