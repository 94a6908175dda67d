"""The multiplexer: which reply answers which request, and messages that answer none."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport import connection
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.client.transport.session import Session
from django_nats.client.transport.waiter import Waiter
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, OutcomeUnknown
from tests.client.lanes import listen, session_of, soon
from tests.support.answers import Clock
from tests.support.proxy import Proxy

LANE = Lane("a lane", 0.3)
PATIENT = Lane("a patient lane", 60.0)  # for requests that are answered
MOST = 1000  # bytes
END = Reply(b"NATS/1.0 204 EOB\r\n\r\n", b"")


async def ask(session: Session, *requests: Request) -> list[Any]:
    def steps() -> Steps[list[Any]]:
        return (yield list(requests))

    return await drivers.arun(session, steps())


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


async def test_a_second_answer_is_ignored(session: Session, service: Client) -> None:
    async def answer(message: Any) -> None:
        for turn in range(3):
            await message.respond(b"%b %d" % (message.data, turn))

    await listen(service, "twice", answer)
    for number in range(5):
        (reply,) = await ask(session, Request(PATIENT, "twice", b"%d" % number))
        assert reply.payload == b"%d 0" % number
    assert session.waiters == 0


async def test_a_message_that_cannot_be_a_reply_is_ignored(
    session: Session, service: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """If the reader raised, no further answer would arrive."""
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

    # The server itself sends a status line, as no service listens to this subject.
    (replies,) = await ask(session, Request(PATIENT, "nobody", gather=10))
    assert [b" 503" in each.header for each in replies] == [True]
    await listen(service, "several", answer)
    (replies,) = await ask(session, Request(PATIENT, "several", gather=3))
    assert [each.payload for each in replies] == [b"0", b"1", b"2"]
    assert session.waiters == 0


async def test_gathering_that_does_not_end_times_out_after_the_last_reply(
    session: Session, service: Client, waiting_clock: Clock
) -> None:
    lane = Lane("one that is answered in pieces", 1.0)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def note(message: Any) -> None:
        asked.set_result(message)

    await listen(service, "endless", note)
    gathering = asyncio.ensure_future(ask(session, Request(lane, "endless", gather=10)))
    message = await asked
    assert session.connection is not None
    (waiter,) = session.connection.outstanding.waiters()
    for _ in range(4):
        waiting_clock.now += lane.timeout / 2
        await message.respond(b"more")
        end = waiting_clock.now + lane.timeout
        assert await soon(lambda end=end: waiter.deadline == end)  # type: ignore[misc]
    assert not gathering.done()
    waiting_clock.now += lane.timeout
    (error,) = await gathering
    assert isinstance(error, OutcomeUnknown)
    assert session.waiters == 0


async def test_an_inbox_of_its_own_is_unsubscribed_with_its_request(
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
    """Repeat a request until the server answers that no service listens."""
    while True:
        try:
            await service.request(inbox, b"?", timeout=0.2)
        except nats.errors.NoRespondersError:
            return
        except nats.errors.TimeoutError:
            pass


async def test_a_request_that_cannot_be_framed_fails_alone(
    session: Session, service: Client
) -> None:
    """Requests in the same write are answered, and no waiter is left."""
    received = []

    async def note(message: Any) -> None:
        received.append(message)

    await listen(service, "with-it", note)
    await ask(session, Request(PATIENT, "warm-up"))
    same = session._connection
    broken = Request(PATIENT, "nobody", "text")  # type: ignore[arg-type]  # as a bug would have it
    held = threading.Event()
    loop_thread.call(held.wait)  # until all of them are queued, so that they are sent together
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
    before, culprit, after = await asyncio.gather(*asked)
    assert [type(each) for each in before + after] == [Reply, Reply]
    assert [type(each) for each in culprit] == [NotSent] * 3
    assert isinstance(culprit[0].__cause__, TypeError)
    await service.flush()
    assert (received, session._connection, session.waiters) == ([], same, 0)


# A slow link -------------------------------------------------------------------------------


class SlowLink(Proxy):
    """A server that reads a number of bytes per second from a client, into small buffers."""

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server.port)
        self.token = server.token
        self.rate = 8e6
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                if not replies:
                    time.sleep(len(data) / self.rate)  # real time: the link is slow
                self._flowing.wait()
                sink.sendall(data)


@pytest.fixture
def link() -> Iterator[SlowLink]:
    with NatsServer(config="max_payload: 64MB") as server:
        link = SlowLink(server)
        with link:
            yield link
            process.close()


async def _over(link: SlowLink) -> Session:
    config = ConnectionConfig((link.url,), token=link.token, connect_timeout=30.0)
    session = process.session(config)
    await ask(session, Request(PATIENT, "warm-up"))
    return session


BIG = Request(LANE, "nobody", b"x" * 8_000_000)


@pytest.mark.faults
@pytest.mark.parametrize("high_water", [connection.HIGH_WATER_BYTES, 1024 * 1024])
async def test_a_request_does_not_time_out_while_bytes_leave(
    link: SlowLink, monkeypatch: pytest.MonkeyPatch, high_water: int
) -> None:
    """A large request is sent for three times the timeout.

    Neither it nor the requests that are written or queued behind it time out.
    """
    lane = Lane("a slow lane", 5.0)
    monkeypatch.setattr(connection, "HIGH_WATER_BYTES", high_water)
    monkeypatch.setattr(connection, "PING_INTERVAL_S", lane.timeout / 3)
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
async def test_a_request_times_out_if_no_bytes_leave(link: SlowLink, trouble: str) -> None:
    session = await _over(link)
    link.rate = 2e6  # bytes a second: even if the test stalls, a part of the request is not sent
    asked = asyncio.gather(ask(session, BIG), ask(session, Request(LANE, "nobody")))
    await asyncio.wait([asked], timeout=LANE.timeout / 2)
    if trouble == "stopped":
        link.freeze()
    else:
        link.rate = 500e3  # bytes a second
    answers = await asked  # all of it would be sent if the caller waited
    assert [type(answer) for (answer,) in answers] == [OutcomeUnknown] * 2
    assert session.waiters == 0


async def test_a_missing_answer_times_out_while_others_write(
    session: Session, service: Client, waiting_clock: Clock
) -> None:
    """Sent bytes do not extend the timeout of a request that was sent before them."""
    written = asyncio.Event()

    async def ignore(message: Any) -> None:
        written.set()

    await listen(service, "mute", ignore)
    waiting = asyncio.ensure_future(ask(session, Request(LANE, "mute")))
    await written.wait()
    payload = b"x" * (session.max_payload // 2)
    for _ in range(6):
        await ask(session, Request(PATIENT, "nobody", payload))
        waiting_clock.now += LANE.timeout / 4
    (error,) = await asyncio.wait_for(waiting, 60)
    assert isinstance(error, OutcomeUnknown)


# One caller's wait ---------------------------------------------------------------------------


def _waiter(*gathers: int) -> tuple[Waiter, list[str]]:
    woken: list[str] = []
    requests = [Request(LANE, f"r{number}", gather=most) for number, most in enumerate(gathers)]
    return Waiter(requests, lambda: woken.append("woken")), woken


def test_a_waiter_is_woken_once_with_every_answer() -> None:
    waiter, woken = _waiter(0, 2)
    one, two = Reply(b"", b"one"), Reply(b"", b"two")
    assert waiter.gather(1, one, 2, MOST) is None
    waiter.answer(0, one)
    assert woken == []
    waiter.answer(1, waiter.gather(1, two, 2, MOST) or END)
    assert (waiter.answers, woken) == ([one, [one, two]], ["woken"])
    waiter.fail(OutcomeUnknown())
    assert (waiter.answers, woken) == ([one, [one, two]], ["woken"])


def test_only_open_requests_fail() -> None:
    waiter, woken = _waiter(0, 0, 5, 5, 1)
    reply, error = Reply(b"", b"x"), OutcomeUnknown()
    waiter.answer(1, reply)
    assert waiter.gather(2, reply, 5, MOST) is None
    for index, last, most in ((3, END, 5), (4, reply, 1)):
        waiter.answer(index, waiter.gather(index, last, most, MOST) or reply)
    assert waiter.first_open is waiter.requests[0]
    waiter.fail(error)
    assert waiter.answers == [error, reply, error, [END], [reply]]
    assert woken == ["woken"]


def test_the_first_open_request_is_found() -> None:
    waiter, _ = _waiter(0, 3, 0)
    waiter.answer(0, END)
    assert waiter.gather(1, Reply(b"", b"x"), 3, MOST) is None
    assert waiter.first_open is waiter.requests[1]
    waiter.answer(1, waiter.gather(1, END, 3, MOST) or END)
    assert waiter.first_open is waiter.requests[2]


async def test_a_waiter_that_is_answered_while_it_is_timed_out_ends_no_timeouts(
    session: Session, service: Client
) -> None:
    """A caller that reads may answer it after the sweep has found it overdue."""

    async def ignore(message: Any) -> None: ...

    await listen(service, "silence", ignore)
    await ask(session, Request(PATIENT, "warm-up"))
    connection = session._connection
    assert connection is not None
    lane = Lane("overdue", PATIENT.timeout)  # it times out when the test says so, and not before
    waiter = Waiter([Request(lane, "overdue")], lambda: None)
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

    loop_thread.call(sweep)
    await swept.wait()
    assert isinstance(waiter.answers[0], Reply)
    assert lane.fault is None
    (answer,) = await ask(session, Request(LANE, "silence"))
    assert isinstance(answer, OutcomeUnknown)  # the next request still times out


async def test_no_caller_writes_while_the_transport_has_bytes_buffered(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While asyncio's transport sends the rest of its buffer, the buffer looks empty."""
    await ask(session, Request(PATIENT, "warm-up"))
    connection = session._connection
    assert connection is not None
    # Wait for the last check of the buffer, which would undo the following line.
    assert await soon(lambda: not connection.outgoing._transport_busy)
    monkeypatch.setattr(connection.outgoing, "buffered", lambda: 0)
    monkeypatch.setattr(connection.outgoing, "_transport_busy", True)
    waiter = Waiter([Request(LANE, "nobody")], lambda: None)
    assert not connection.send_directly(waiter)
    monkeypatch.setattr(connection.outgoing, "_transport_busy", False)
    assert connection.send_directly(waiter) is (connection._shared is not None)


async def test_a_closed_connection_is_not_taken_for_a_signal(
    own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    session = session_of(own_server, token=own_server.token)
    await ask(session, Request(PATIENT, "warm-up"))
    lost = session._connection
    assert lost is not None
    own_server.kill()
    assert await soon(lambda: session._connection is not lost)
    assert "interrupted" not in caplog.text
