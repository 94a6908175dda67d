"""The circuit: of the connection, and of each lane; against services that need no JetStream."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_nats.client import bridge, connection, sweep
from django_nats.client import session as client_session
from django_nats.client.config import ConnectionConfig
from django_nats.client.connection import HIGH_WATER
from django_nats.client.session import Session
from django_nats.client.steps import Lane, Request, Steps
from django_nats.client.waiter import Waiter
from django_nats.client.wire import Reply
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import AuthenticationFailed, NotSent, OutcomeUnknown, PermissionDenied

TIMEOUT = 1.0


@pytest.fixture
def session(server: NatsServer) -> Session:
    return bridge.session(ConnectionConfig((server.url,), token=server.token, name="circuit"))


@pytest.fixture
async def service(server: NatsServer) -> AsyncIterator[Client]:
    """Another client, which answers what it is told to: a stream that can be made mute."""
    client = await nats.connect(server.url, token=server.token)
    yield client
    await client.close()


def asking(lane: Lane, subject: str, payload: bytes = b"", **kwargs: Any) -> Steps[Any]:
    return (yield Request(lane, subject, payload, **kwargs))


async def listen(
    service: Client, subject: str, answer: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """Subscribe, and wait until the server knows of it."""
    await service.subscribe(subject, cb=answer)
    # nats-py's first ping may overtake the subscription.
    await service.flush()
    await service.flush()


async def ask(session: Session, lane: Lane, subject: str, payload: bytes = b"") -> Reply:
    return await bridge.arun(session, asking(lane, subject, payload))


async def ignore(message: Any) -> None:
    """A service that is there and says nothing."""


async def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    return await asyncio.get_running_loop().run_in_executor(None, eventually, condition, deadline)


async def test_a_mute_lane_is_down_alone_until_somebody_answers(
    session: Session,
    service: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_session, "_PROBE_PAUSE", 2.0)  # seconds for the 20 refusals
    caplog.set_level(logging.DEBUG, "django_nats")
    mute, other = Lane("mute", TIMEOUT), Lane("other", TIMEOUT)
    mute.probe = Request(Lane("probe", TIMEOUT), "mute")
    speaking = asyncio.Event()
    asked = []

    async def answer(message: Any) -> None:
        asked.append(message.subject)
        if message.subject == "other" or speaking.is_set():
            await message.respond(b"{}")

    await listen(service, "mute", answer)
    await listen(service, "other", answer)

    started = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="mute"):
        await ask(session, mute, "mute")
    assert TIMEOUT <= time.monotonic() - started < 1.2 * TIMEOUT + 5
    refused = len(asked)
    for _ in range(20):
        with pytest.raises(NotSent, match="mute does not answer"):
            await ask(session, mute, "mute")
    assert len(asked) == refused
    assert (await ask(session, other, "other")).payload == b"{}"
    assert session.connected

    speaking.set()
    assert await soon(lambda: mute.fault is None)
    assert (await ask(session, mute, "mute")).payload == b"{}"
    messages = [record.getMessage() for record in caplog.records if record.name == "django_nats"]
    assert messages == ["mute does not answer at the moment", "mute answers again"]


async def test_a_mute_lane_among_answers_of_others_is_not_a_silent_server(
    session: Session, service: Client
) -> None:
    """And nobody is asked for a sign of life who gives one all the time."""
    lanes = Lane("chatty", 30), Lane("mute", TIMEOUT)
    lanes[1].probe = Request(lanes[1], "mute")

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "chatty", answer)
    await listen(service, "mute", ignore)
    waiting = asyncio.ensure_future(ask(session, lanes[1], "mute"))
    while not waiting.done():
        await ask(session, lanes[0], "chatty")
    with pytest.raises(OutcomeUnknown):
        await waiting
    assert lanes[1].fault
    assert session.connected
    lanes[1].probe = None  # ends the probing


async def test_in_a_list_the_lane_that_did_not_answer_is_the_one_that_is_down(
    session: Session, service: Client
) -> None:
    good, mute = Lane("good", TIMEOUT), Lane("mute", TIMEOUT)
    good.probe = mute.probe = Request(mute, "mute")

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "good", answer)
    await listen(service, "mute", ignore)

    def both() -> Steps[list[Any]]:
        return (yield [Request(good, "good"), Request(mute, "mute")])

    first, second = await bridge.arun(session, both())
    assert first.payload == b"{}"
    assert isinstance(second, OutcomeUnknown)
    assert (good.fault, bool(mute.fault)) == (None, True)
    mute.probe = None


async def test_a_lane_is_not_asked_again_at_once(
    session: Session, service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replica of several may be mute: the probe finds another, and the next call the mute."""
    monkeypatch.setattr(client_session, "_PROBE_PAUSE", 2.0)  # seconds for the refusals
    lane = Lane("one in three", TIMEOUT)
    lane.probe = Request(Lane("probe", TIMEOUT), "speaking")

    async def answer(message: Any) -> None:
        await message.respond(b"{}")

    await listen(service, "speaking", answer)
    await listen(service, "mute", ignore)
    outcomes = []
    for _ in range(5):
        with pytest.raises((NotSent, OutcomeUnknown)) as raised:
            await ask(session, lane, "mute")
        outcomes.append(raised.type)
        await asyncio.sleep(0.002)
    assert outcomes == [OutcomeUnknown] + [NotSent] * 4
    assert await soon(lambda: lane.fault is None)


async def test_a_server_that_stops_just_after_it_spoke_is_silent(own_server: NatsServer) -> None:
    """Else every lane would have to time out by itself."""
    session = _session(own_server, token=own_server.token)
    timeout = 2.0  # so that a machine that is busy for a moment is no silent server
    lane, other = Lane("first", timeout), Lane("other", timeout)
    lane.probe = Request(lane, "mute")
    service = await nats.connect(own_server.url, token=own_server.token, allow_reconnect=False)
    await listen(service, "mute", ignore)
    await ask(session, other, "nobody")
    waiting = asyncio.ensure_future(ask(session, lane, "mute"))
    await asyncio.sleep(timeout / 6)
    await ask(session, other, "nobody")
    own_server.pause()
    with pytest.raises(OutcomeUnknown):
        await waiting
    with pytest.raises(NotSent):
        await ask(session, other, "nobody")
    assert lane.fault is None
    own_server.resume()
    await service.close()


async def test_a_loop_that_is_always_held_up_ends_its_calls_all_the_same(
    session: Session, service: Client
) -> None:
    await listen(service, "mute", ignore)
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    busy = True

    def hold_up() -> None:
        time.sleep(1.2 * sweep.LATE)
        if busy:
            bridge._thread.call(hold_up)

    bridge._thread.call(hold_up)
    try:
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(ask(session, Lane("mute", TIMEOUT), "mute"), 5)
    finally:
        busy = False
    assert await soon(lambda: session.connected)


async def test_nobody_listening_is_an_answer(session: Session) -> None:
    reply = await ask(session, Lane("nobody", TIMEOUT), "nobody")
    assert b" 503" in reply.header


async def test_the_loop_held_up_is_not_the_server_being_slow(
    session: Session, service: Client
) -> None:
    """The answer is there when the loop comes back to it, long after the deadline."""
    lane = Lane("slow", TIMEOUT)
    held = threading.Event()

    async def answer(message: Any) -> None:
        # Held up before the answer is on its way, and until after the deadline.
        bridge._thread.call(lambda: (held.set(), time.sleep(2 * TIMEOUT)))
        await asyncio.get_running_loop().run_in_executor(None, held.wait)
        await message.respond(b"late")

    await listen(service, "slow", answer)
    reply = await ask(session, lane, "slow")
    assert reply.payload == b"late", reply


async def test_frames_the_server_would_end_the_connection_for_are_not_sent(
    session: Session,
) -> None:
    lane = Lane("big", TIMEOUT)
    await ask(session, lane, "warm-up")
    same = session._connection
    with pytest.raises(ValueError, match="max_payload"):
        await ask(session, lane, "a", b"x" * (session.max_payload + 1))
    header = b"NATS/1.0\r\nA: b\r\n\r\n"
    payload = b"x" * (session.max_payload - len(header) + 1)
    with pytest.raises(ValueError, match="headers"):
        await bridge.arun(session, asking(lane, "a", payload, header=header))
    with pytest.raises(ValueError, match="too long"):
        await ask(session, lane, "a" * 4090)
    # At the limits they are.
    await ask(session, lane, "a", b"x" * session.max_payload)
    await ask(session, lane, "a" * 3950)
    assert session._connection is same
    assert session.waiters == 0


def test_a_frame_too_large_among_others_is_refused_alone(session: Session) -> None:
    lane = Lane("big", TIMEOUT)

    def three() -> Steps[list[Any]]:
        big = Request(lane, "a", b"x" * (session.max_payload + 1))
        return (yield [Request(lane, "a"), big, Request(lane, "b")])

    first, second, third = bridge.run(session, three())
    assert isinstance(first, Reply)
    assert isinstance(second, ValueError)
    assert isinstance(third, Reply)


def test_what_does_not_fit_into_the_buffer_waits_its_turn(session: Session) -> None:
    """And all of it is sent: several times what may wait in the transport."""
    lane = Lane("much", 10.0)
    payload = b"x" * (512 * 1024)
    count = 4 * HIGH_WATER // len(payload)
    ended: list[Reply] = []

    def send() -> None:
        ended.append(bridge.run(session, asking(lane, "nobody", payload)))

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == count


def in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests go the way they go when others are waiting too."""
    monkeypatch.setattr(connection.Connection, "carry", lambda self, waiter: False)


async def test_what_finds_no_room_is_refused_in_time(
    session: Session, service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with servers that answer, but read more slowly than is written."""
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "room", note)
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER", 0)
    started = time.monotonic()
    with pytest.raises(NotSent, match="takes nothing more"):
        await ask(session, Lane("room", TIMEOUT), "room")
    assert TIMEOUT <= time.monotonic() - started < 2 * TIMEOUT + 5
    monkeypatch.undo()
    await ask(session, Lane("after", TIMEOUT), "after")
    await service.flush()
    assert (received, session.waiters) == ([], 0)


async def test_what_waits_for_room_is_refused_when_the_server_falls_silent(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _session(own_server, token=own_server.token)
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    own_server.pause()
    sent = asyncio.ensure_future(ask(session, Lane("sent", TIMEOUT), "a"))
    assert await soon(lambda: session.waiters == 1)
    monkeypatch.setattr(connection, "HIGH_WATER", 0)
    started = time.monotonic()
    with pytest.raises(NotSent, match="does not answer"):
        await ask(session, Lane("patient", 60.0), "b")
    assert time.monotonic() - started < 10
    with pytest.raises(OutcomeUnknown):
        await sent


async def test_what_comes_just_after_the_connection_was_lost_is_not_sent(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the loss and the session's noticing it, nothing may vanish into a dead socket."""
    in_company(monkeypatch)
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    answered = threading.Event()
    waiter = Waiter([Request(Lane("late", 60.0), "a")], answered.set)

    def lose() -> None:
        assert session._connection is not None
        session.submit(waiter)
        session._connection.lose(ConnectionError("cut"))

    bridge._thread.call(lose)
    assert await soon(answered.is_set)
    assert isinstance(waiter.answers[0], NotSent)


async def test_what_is_given_up_before_it_is_sent_is_never_sent(
    session: Session, service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_company(monkeypatch)
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "noted", note)
    lane = Lane("noted", TIMEOUT)
    given_up = Waiter([Request(lane, "noted", b"given up")], lambda: None)
    wanted = Waiter([Request(lane, "noted", b"wanted")], lambda: None)
    held = threading.Event()
    bridge._thread.call(held.wait)
    session.submit(given_up)
    session.submit(wanted)
    session.abandon(given_up)
    held.set()
    assert await soon(lambda: bool(received))
    assert received == [b"wanted"]
    session.abandon(wanted)
    assert await soon(lambda: session.waiters == 0)


async def test_what_is_given_up_while_it_waits_for_room_takes_nobody_with_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER", 0)
    given_up = asyncio.ensure_future(ask(session, Lane("hasty", TIMEOUT), "a"))
    wanted = asyncio.ensure_future(ask(session, Lane("patient", 60.0), "nobody"))
    assert await soon(lambda: session.waiters == 2)
    given_up.cancel()
    await asyncio.wait([wanted], timeout=2 * TIMEOUT)
    monkeypatch.undo()
    assert b" 503" in (await wanted).header


async def test_when_all_that_waits_for_room_is_given_up_nothing_is_left(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(session, Lane("warm-up", TIMEOUT), "warm-up")
    in_company(monkeypatch)
    monkeypatch.setattr(connection, "HIGH_WATER", 0)
    given_up = asyncio.ensure_future(ask(session, Lane("hasty", 60.0), "a"))
    assert await soon(lambda: session.waiters == 1)
    given_up.cancel()
    assert await soon(lambda: session.waiters == 0)
    monkeypatch.undo()
    assert b" 503" in (await ask(session, Lane("after", TIMEOUT), "nobody")).header
    assert caplog.records == []


# Requests nobody waits for -------------------------------------------------------------------


async def test_what_is_posted_is_sent_and_waited_for_by_nobody(
    session: Session, service: Client
) -> None:
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)
        await message.respond(b"{}")

    await listen(service, "posted", note)
    lane = Lane("posted", 60.0)
    held = threading.Event()
    bridge._thread.call(held.wait)  # a post that waited for its answer would not return
    session.post(Request(lane, "posted", b"one"))
    held.set()
    assert await soon(lambda: received == [b"one"])
    assert await soon(lambda: session.waiters == 0)


async def test_what_is_posted_while_the_circuit_is_open_is_dropped(
    session: Session, service: Client
) -> None:
    received = []

    async def note(message: Any) -> None:
        received.append(message.data)

    await listen(service, "posted", note)
    lane = Lane("posted", TIMEOUT)
    lane.fault = "the circuit is open"
    session.post(Request(lane, "posted", b"dropped"))
    await ask(session, Lane("after", TIMEOUT), "nobody")
    await service.flush()
    assert (received, session.waiters) == ([], 0)


# Permissions ---------------------------------------------------------------------------------

_USERS = """
authorization {{ users: [{{ user: u, password: p, permissions: {{ {permissions} }} }}] }}
"""


def _session(server: NatsServer, **credentials: str) -> Session:
    return bridge.session(ConnectionConfig((server.url,), **credentials))  # type: ignore[arg-type]


def test_no_permission_to_publish_is_told_at_once() -> None:
    config = _USERS.format(permissions='publish: { deny: ["Denied.>"] }')
    with NatsServer(config=config, token="") as server:
        session = _session(server, user="u", password="p")
        lane = Lane("denied", 20.0)
        bridge.run(session, asking(lane, "allowed"))
        same = session._connection
        started = time.monotonic()
        with pytest.raises(PermissionDenied, match=r"Denied\.a"):
            bridge.run(session, asking(lane, "Denied.a"))
        assert time.monotonic() - started < 10
        bridge.run(session, asking(lane, "allowed"))
        assert session._connection is same
        assert session.waiters == 0
        bridge.close()


def test_no_permission_for_the_inbox_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing would ever be answered, and every call would have to time out to find out."""
    config = _USERS.format(permissions='subscribe: { deny: ["_INBOX.>"] }')
    with NatsServer(config=config, token="") as server:
        session = _session(server, user="u", password="p")
        lane = Lane("inbox", 20.0)
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(NotSent, match="permissions violation for subscription"):
                bridge.run(session, asking(lane, "a"))
        assert time.monotonic() - started < 10
        session = bridge.session(
            ConnectionConfig((server.url,), user="u", password="p", inbox_prefix="_MINE")
        )
        bridge.run(session, asking(lane, "a"))
        bridge.close()
    assert len([each for each in caplog.records if each.name == "django_nats"]) == 1


def test_wrong_credentials(own_server: NatsServer) -> None:
    session = _session(own_server, token="wrong")
    for _ in range(2):
        with pytest.raises(AuthenticationFailed) as raised:
            bridge.run(session, asking(Lane("a", TIMEOUT), "a"))
        assert "wrong" not in str(raised.value)
        assert raised.value.__cause__ is not None


def test_what_is_shown_of_a_session(session: Session, server: NatsServer) -> None:
    bridge.run(session, asking(Lane("a", TIMEOUT), "a"))
    assert repr(session) == f"<Session {server.url}>"
    assert server.token not in repr(session.config)
    fresh = Session(ConnectionConfig(("nats://elsewhere:4222",), token="secret"), bridge._thread)
    assert repr(fresh) == "<Session nats://elsewhere:4222 (not connected)>"
    assert (fresh.server, fresh.max_payload, fresh.waiters) == ("", 1024 * 1024, 0)
