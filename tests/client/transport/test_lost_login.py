"""A connection that is lost is reported as that, however late the loop goes on.

Everything that the server sent, and the end of the connection, may have arrived by then.
"""

from __future__ import annotations

import re
import ssl
from typing import Any

import pytest

from django_nats.client import drivers, process
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, NotSent
from tests.client.lanes import PATIENT, asking, soon
from tests.support.certificates import Authority
from tests.support.closing import POINTS, ClosingServer, Ending
from tests.support.closing_late import go_on_late

pytestmark = pytest.mark.usefixtures("loop_name")

LOST = "closed the connection during the login$"
WORDS = {
    "greeted": LOST,
    "refused": "the server refused the connection: maximum connections exceeded$",
    "handshake": "closed the connection during the TLS handshake$",
    "asked": LOST,
    "denied": "'?Authorization Violation'?. Set USER",
    "accepted": LOST,
}
assert WORDS.keys() == set(POINTS)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    """Return the server's context."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(*authority.issue("server", "127.0.0.1"))
    return made


def failure(server: ClosingServer, tls: TLSConfig | None) -> NotSent:
    session = process.session(ConnectionConfig((server.url,), connect_timeout=600.0, tls=tls))
    with pytest.raises(NotSent) as caught:
        drivers.run(session, asking(PATIENT, "nobody"))
    process.close()
    return caught.value


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("point", POINTS)
def test_a_connection_that_ends_during_the_login_is_named(
    monkeypatch: pytest.MonkeyPatch,
    authority: Authority,
    context: ssl.SSLContext,
    point: str,
    with_tls: bool,
    reset: bool,
) -> None:
    if point == "handshake" and not with_tls:
        return
    ending = Ending(point, reset, context if with_tls else None)
    with ClosingServer(ending).running() as server:
        go_on_late(monkeypatch, server, point)
        error = failure(server, TLSConfig(ca=authority.ca) if with_tls else None)
    words = WORDS[point]
    if with_tls and point == "greeted":
        words = f"{LOST}|{WORDS['handshake']}"  # as it was lost between the two
    assert re.search(words, str(error)), str(error)
    assert isinstance(error, AuthenticationFailed) == (point == "denied")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_certificate_that_is_asked_for_after_the_handshake_is_named(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, context: ssl.SSLContext, reset: bool
) -> None:
    ending = Ending("handshake", reset, context, asks_certificate=True)
    with ClosingServer(ending).running() as server:
        go_on_late(monkeypatch, server, "handshake")
        error = failure(server, TLSConfig(ca=authority.ca))
    assert "asks for a client's certificate. Set CERT and KEY" in str(error)


def test_a_connection_that_is_lost_after_the_login_has_nothing_to_send(
    authority: Authority,
) -> None:
    """Where nobody knows of the loss yet, others still ask how much is in the buffer."""
    config = authority.block("127.0.0.1")
    with NatsServer(config=config, token="", jetstream=False) as server:
        tls = TLSConfig(ca=authority.ca)
        session = process.session(ConnectionConfig((server.url,), connect_timeout=60.0, tls=tls))
        drivers.run(session, asking(PATIENT, "nobody"))
        connection: Any = session._connection

        async def lose() -> int:
            connection.outgoing.reserve(100)
            transport = connection._transport
            transport._io_writer.transport.abort()
            assert await soon(lambda: transport.closed)
            return int(connection.outgoing.sent_bytes())

        sent, _ = loop_thread.submit(lose)
        assert sent.result() == connection.outgoing._reserved
        process.close()
