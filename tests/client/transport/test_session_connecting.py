"""Connecting: late connections, refused logins, permissions, and pauses between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane
from django_nats.client.transport import session as client_session
from django_nats.client.transport.backoff import Backoff, is_refusal
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.loop import LoopThread
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NotSent, PermissionDenied
from tests.client.lanes import PATIENT, ask, asking, session_of, soon
from tests.support.ports import free_port


class Late:
    """A loop that was abandoned, and continues after the next one has started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client_id = 1
        self.aborted = False
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.connected = asyncio.Event()
        self.session = Session(ConnectionConfig(("nats://127.0.0.1:1",)), LoopThread())
        monkeypatch.setattr(self.session._connector, "connect", self.connect)
        monkeypatch.setattr(self.session, "_flush", lambda: None)
        self.supervisor = asyncio.get_running_loop().create_task(self.session._supervise())
        self.session._supervisor = self.supervisor

    async def connect(self, failures: list[Exception], *, callers_wait: bool) -> Late:
        await self.connected.wait()
        return self

    def abort(self) -> None:
        self.aborted = True


async def test_a_connection_that_is_made_too_late_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Late(monkeypatch)
    await asyncio.sleep(0)
    late.session.forget()
    late.connected.set()
    await late.supervisor
    assert late.aborted
    assert late.session.connection is None


async def test_the_loss_of_an_earlier_connection_leaves_the_next_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Late(monkeypatch)
    late.connected.set()
    await asyncio.sleep(0)
    assert late.session.connection is not None
    late.session.forget()
    following: Any = object()
    late.session._connection = following
    late.lost.set_result(ConnectionResetError())
    await late.supervisor
    assert late.session.connection is following


_USERS = """
authorization {{ timeout: 60, users: [
  {{ user: u, password: p, permissions: {{ {permissions} }} }}
] }}
"""


def test_a_missing_permission_to_publish_fails_at_once() -> None:
    config = _USERS.format(permissions='publish: { deny: ["Denied.>"] }')
    with NatsServer(config=config, token="") as server:
        session = session_of(server, user="u", password="p")
        lane = Lane("denied", 3600.0)
        drivers.run(session, asking(lane, "allowed"))
        same = session._connection
        with pytest.raises(PermissionDenied, match=r"Denied\.a"):
            drivers.run(session, asking(lane, "Denied.a"))
        drivers.run(session, asking(lane, "allowed"))
        assert session._connection is same
        assert session.waiters == 0
        process.close()


def test_a_missing_permission_for_the_inbox_fails_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise every call would time out, as no answer could arrive."""
    config = _USERS.format(permissions='subscribe: { deny: ["_INBOX.>"] }')
    with NatsServer(config=config, token="") as server:
        session = session_of(server, user="u", password="p")
        lane = Lane("inbox", 3600.0)
        for _ in range(10):
            with pytest.raises(NotSent, match="permissions violation for subscription"):
                drivers.run(session, asking(lane, "a"))
        session = process.session(
            ConnectionConfig(
                (server.url,), user="u", password="p", inbox_prefix="_MINE", connect_timeout=30.0
            )
        )
        drivers.run(session, asking(lane, "a"))
        process.close()
    assert len([each for each in caplog.records if each.name == "django_nats"]) == 1


def test_wrong_credentials_are_refused(own_server: NatsServer) -> None:
    session = session_of(own_server, token="wrong")
    for _ in range(2):
        with pytest.raises(AuthenticationFailed) as raised:
            drivers.run(session, asking(PATIENT, "a"))
        assert "wrong" not in str(raised.value)
        assert raised.value.__cause__ is not None


class Noting(Backoff):
    """A Backoff with short pauses that records the arguments of each."""

    made: ClassVar[list[Noting]] = []

    def __init__(self, *waits: float) -> None:
        super().__init__(*waits)
        self.waits = waits
        self.failures: list[list[Exception]] = []
        self.losses: list[tuple[float, int, int]] = []
        self.made.append(self)

    def failed(self, failures: Sequence[Exception]) -> float:
        self.failures.append(list(failures))
        return min(super().failed(failures), 0.05)

    def lost(self, lived: float, number: int, servers: int) -> float:
        self.losses.append((lived, number, servers))
        return min(super().lost(lived, number, servers), 0.05)


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> type[Noting]:
    monkeypatch.setattr(client_session, "Backoff", Noting)
    monkeypatch.setattr(Noting, "made", [])
    return Noting


async def test_a_session_reconnects_after_a_secret_is_rotated_on_the_server(
    own_server: NatsServer, noting: type[Noting]
) -> None:
    session = session_of(own_server, token="new", max_reconnect_wait=1.5, max_refused_wait=2.5)
    with pytest.raises(AuthenticationFailed):
        await ask(session, PATIENT, "a")
    (backoff,) = noting.made
    assert backoff.waits == (1.5, 2.5)
    assert await soon(lambda: bool(backoff.failures))
    assert all(is_refusal(each) for each in backoff.failures[0])
    own_server.token = "new"
    own_server.restart()
    assert await soon(lambda: session.connected)


async def test_the_failure_of_every_server_counts(
    own_server: NatsServer, noting: type[Noting]
) -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"
    session = process.session(
        ConnectionConfig((own_server.url, nobody), token="wrong", connect_timeout=60.0)
    )
    with pytest.raises(NotSent):
        await ask(session, PATIENT, "a")
    (backoff,) = noting.made
    assert await soon(lambda: bool(backoff.failures))
    assert sorted(is_refusal(each) for each in backoff.failures[0]) == [False, True]


async def test_a_pause_after_a_loss_depends_on_the_number_of_clients(
    own_server: NatsServer, noting: type[Noting]
) -> None:
    session = session_of(own_server, token=own_server.token)
    await ask(session, PATIENT, "a")
    lost = session._connection
    assert lost is not None
    number = lost.client_id
    own_server.kill()
    assert await soon(lambda: session._connection is not lost)
    (backoff,) = noting.made
    assert await soon(lambda: bool(backoff.losses))
    (lived, connections, servers), *_ = backoff.losses
    assert (lived > 0, connections, servers) == (True, number, 1)


async def test_a_session_reconnects_at_once_after_an_interruption(
    own_server: NatsServer, noting: type[Noting]
) -> None:
    """The server did not cause the interruption, so there is no pause."""
    session = session_of(own_server, token=own_server.token)
    await ask(session, PATIENT, "a")
    lost = session._connection
    assert lost is not None
    lost.fail_from_anywhere(KeyboardInterrupt())
    assert await soon(lambda: session._connection not in (lost, None))
    assert noting.made[0].losses == []
