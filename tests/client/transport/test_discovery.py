"""Servers that a connected server announces: used, trusted by name, or ignored."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from django_nats.client import drivers, process
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import Unavailable
from tests.client.lanes import PATIENT, asking
from tests.support.announced import address, pair
from tests.support.black_hole import Names, black_hole
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.proxy import Proxy

NAME, OTHER = "nats.example", "other.example"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is on Linux only")


def soon(condition: Callable[[], bool], seconds: float = 60) -> bool:
    return eventually(condition, monotonic() + seconds)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
        process.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found = Names(monkeypatch)
    found.addresses[NAME] = ["127.0.0.1"]
    return found


def connected(url: str, other: str, **options: object) -> Session:
    """Return a session that is connected to a server, which has announced another one."""
    common = {"connect_timeout": 60.0, "max_reconnect_wait": 0.2, "max_refused_wait": 0.2}
    session = process.session(ConnectionConfig((url,), **{**common, **options}))  # type: ignore[arg-type]
    drivers.run(session, asking(PATIENT, "nobody"))
    connection = session.connection
    assert connection is not None
    assert soon(lambda: other in connection.announced)
    return session


def port_of(session: Session) -> int | None:
    connection = session.connection
    return None if connection is None else int(connection.connected_url.port)


def test_an_announced_server_is_used_when_the_first_one_dies(stack: ExitStack) -> None:
    first, second = pair(stack)
    session = connected(first.url, address(second))
    first.kill()
    assert soon(lambda: port_of(session) == second.port)


def test_an_announced_server_is_not_used_if_settings_say_so(stack: ExitStack) -> None:
    """It may be announced by an address that only the other servers can reach."""
    first, second = pair(stack)
    session = connected(first.url, address(second), discover=False)
    failed: list[Exception] = []
    connect = session._connector.connect

    async def note(failures: list[Exception], *, callers_wait: bool) -> object:
        try:
            return await connect(failures, callers_wait=callers_wait)
        finally:
            failed.extend(failures)

    session._connector.connect = note  # type: ignore[assignment,method-assign]
    first.kill()
    assert soon(lambda: len(failed) >= 3)
    assert not session.connected
    assert session._connector.server_count == 1
    first.start()
    assert soon(lambda: port_of(session) == first.port)


def test_a_server_that_is_announced_no_longer_is_forgotten(stack: ExitStack) -> None:
    """Another program's server may have got its address by then."""
    first, second = pair(stack)
    session = connected(first.url, address(second))
    connection = session.connection
    assert connection is not None
    second.kill()
    assert soon(lambda: address(second) not in connection.announced)
    assert connection.announced
    first.kill()
    assert soon(lambda: session._connector._discovered == [first.url])


# Addresses that drop packets -----------------------------------------------------------------


@on_linux
def test_servers_that_drop_packets_do_not_keep_a_session_from_reconnecting(
    stack: ExitStack,
) -> None:
    """One after another, they would take five times CONNECT_TIMEOUT."""
    server = stack.enter_context(NatsServer(port=free_port(), token="", jetstream=False))
    dead = [f"nats://127.0.0.2:{stack.enter_context(black_hole('127.0.0.2'))}" for _ in range(5)]
    config = ConnectionConfig((*dead, server.url), connect_timeout=60.0, randomize=False)
    session = process.session(config)
    drivers.run(session, asking(PATIENT, "nobody"))
    before = session.connection
    server.restart()
    assert soon(lambda: session.connection not in (before, None), 240)


@on_linux
@pytest.mark.faults
def test_an_outage_is_short_though_five_of_six_servers_drop_packets(stack: ExitStack) -> None:
    server = stack.enter_context(NatsServer(port=free_port(), token="", jetstream=False))
    dead = [f"nats://127.0.0.2:{stack.enter_context(black_hole('127.0.0.2'))}" for _ in range(5)]
    session = process.session(ConnectionConfig((*dead, server.url), randomize=False))
    assert soon(lambda: _asks(session))
    for _ in range(3):
        before = session.connection
        assert before is not None
        before.fail_from_anywhere(ConnectionResetError("cut by the test"))
        began = monotonic()
        assert soon(lambda before=before: session.connection not in (before, None))  # type: ignore[misc]
        assert monotonic() - began < 8  # about one second; two for each server before


def _asks(session: Session) -> bool:
    try:
        drivers.run(session, asking(PATIENT, "nobody"))
    except Unavailable:
        return False
    return True


@on_linux
def test_an_announced_server_that_drops_packets_is_passed_over(stack: ExitStack) -> None:
    """It is announced by an address that only the other servers can reach."""
    port = stack.enter_context(black_hole("127.0.0.2"))
    server, _ = pair(stack, "", f'client_advertise: "127.0.0.2:{port}"')
    session = connected(server.url, f"127.0.0.2:{port}")
    for _ in range(4):  # in random order
        before = session.connection
        assert before is not None
        before.fail_from_anywhere(ConnectionResetError("cut by the test"))
        assert soon(lambda before=before: session.connection not in (before, None))  # type: ignore[misc]
        assert port_of(session) == server.port


# TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


CERTIFICATES = {
    "the configured name": (NAME,),
    "its address only": ("127.0.0.1",),
    "another configured name": (OTHER,),
}


@pytest.mark.parametrize("scheme", ["nats", "tls"])
@pytest.mark.parametrize("hosts", CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_the_certificate_of_an_announced_server_may_have(
    stack: ExitStack,
    names: Names,
    authority: Authority,
    hosts: tuple[str, ...],
    scheme: str,
) -> None:
    first, second = pair(stack, authority.block(NAME), authority.block(*hosts))
    servers = [f"{scheme}://{NAME}:{first.port}", f"{scheme}://{OTHER}:{first.port}"]
    session = _secured(servers, second, authority)
    connection = session.connection
    assert connection is not None
    if "2.11" not in connection.server:
        assert soon(lambda: not connection.announced_in_plain)
    elif NAME not in hosts and OTHER not in hosts:
        pytest.skip("nats-server 2.11 announces others before TLS only")
    first.kill()
    assert soon(lambda: port_of(session) == second.port)


def test_the_certificate_of_an_announced_server_may_not_have_a_strange_name(
    stack: ExitStack, names: Names, authority: Authority
) -> None:
    first, second = pair(stack, authority.block(NAME), authority.block("stranger.example"))
    session = _secured([f"tls://{NAME}:{first.port}"], second, authority)
    first.kill()
    assert soon(lambda: "certificate verify failed" in _refusal(session))
    assert not session.connected


class Announcing(Proxy):
    """A proxy that announces a server of its own, in the INFO that comes before TLS."""

    announced = ""

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        if replies:
            more = f'"proto":1,"connect_urls":["{self.announced}"]'
            sink.sendall(source.recv(64 * 1024).replace(b'"proto":1', more.encode()))
        super()._pump(source, sink, replies)


def test_who_can_change_what_comes_before_tls_gets_no_credentials(
    stack: ExitStack, names: Names, authority: Authority
) -> None:
    """A public authority gives anyone a certificate, for a name of their own."""
    thief = "thief.example"
    names.addresses[thief] = ["127.0.0.1"]
    first, second = (
        stack.enter_context(NatsServer(config=authority.block(host), token="", jetstream=False))
        for host in (NAME, thief)
    )
    proxy = stack.enter_context(Announcing(first.port))
    proxy.announced = f"{thief}:{second.port}"
    url = proxy.url.replace("127.0.0.1", NAME)
    session = connected(url, proxy.announced, tls=TLSConfig(ca=authority.ca))
    proxy.refusing = True
    proxy.cut()
    assert soon(lambda: "certificate verify failed" in _refusal(session))
    assert not session.connected


def test_the_configured_hostname_is_checked_for_every_server(
    stack: ExitStack, names: Names, authority: Authority
) -> None:
    first, second = pair(stack, authority.block(OTHER), authority.block(NAME, "127.0.0.1"))
    session = _secured([f"tls://{NAME}:{first.port}"], second, authority, OTHER)
    first.kill()
    assert soon(lambda: "certificate verify failed" in _refusal(session))
    assert not session.connected


def _secured(
    servers: list[str], other: NatsServer, authority: Authority, hostname: str | None = None
) -> Session:
    session = process.session(
        ConnectionConfig(
            tuple(servers),
            tls=TLSConfig(ca=authority.ca, hostname=hostname),
            connect_timeout=60.0,
            max_reconnect_wait=0.2,
            max_refused_wait=0.2,
            randomize=False,
        )
    )
    drivers.run(session, asking(PATIENT, "nobody"))
    connection = session.connection
    assert connection is not None
    assert soon(lambda: address(other) in connection.announced)
    return session


def _refusal(session: Session) -> str:
    try:
        drivers.run(session, asking(PATIENT, "nobody"))
    except Unavailable as error:
        return str(error)
    return ""
