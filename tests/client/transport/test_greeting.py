"""What is not the server that settings expect is named in plain words."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import nats
import nkeys
import pytest

from django_nats.client import drivers, process
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent, Unavailable
from tests.client.lanes import PATIENT, asking
from tests.servers import eventually
from tests.support.accounts import Identity
from tests.support.black_hole import black_hole
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.terminator import terminator

pytestmark = pytest.mark.usefixtures("loop_name")

NO_NATS = "not the client port of a NATS server"


def failure(url: str, **options: Any) -> str:
    session = process.session(ConnectionConfig((url,), **{"connect_timeout": 60.0, **options}))
    with pytest.raises(NotSent) as caught:
        drivers.run(session, asking(PATIENT, "nobody"))
    process.close()
    return str(caught.value)


# Other services ------------------------------------------------------------------------------


@contextmanager
def service(greeting: bytes | None) -> Iterator[str]:
    """Run a service that begins with its greeting, and closes. None: it waits. Yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer = stack.enter_context(listener.accept()[0])
                    if greeting is not None:
                        peer.sendall(greeting)
                        peer.shutdown(socket.SHUT_WR)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


OTHER_SERVICES = {
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", f'"SSH-2.0-OpenSSH_9.9" is the greeting.*{NO_NATS}'),
    "HTTP": (b"HTTP/1.1 408 Request Timeout\r\n\r\n", f'"HTTP/1.1 408 Request Tim.*{NO_NATS}'),
    "mail": (b"220 mail ESMTP\r\n", f'"220 mail ESMTP" is the greeting.*{NO_NATS}'),
    "an alert of TLS": (b"\x15\x03\x03\x00\x02\x02\x46\n", f'"\\\\x15\\\\x03.*{NO_NATS}'),
    "control characters": (b"\x1b[2J\xff\r\n", r'"\\x1b\[2J'),
    "a word that begins like INFO": (b"INFORMATION\r\n", f'"INFORMATION".*{NO_NATS}'),
    "nothing": (b"", f"closed the connection without a greeting. It is {NO_NATS}.*HANDSHAKE_FIRST"),
    "a line without an end": (b"x" * 200_000, "does not greet as a NATS server does"),
}


@pytest.mark.parametrize(("greeting", "words"), OTHER_SERVICES.values(), ids=OTHER_SERVICES.keys())
def test_another_service_is_named(greeting: bytes, words: str) -> None:
    with service(greeting) as url:
        text = failure(url)
    assert re.search(words, text), text


def test_a_service_that_waits_to_be_asked_is_named() -> None:
    with service(None) as url:
        words = failure(url, connect_timeout=0.5)
    assert "sent no greeting within CONNECT_TIMEOUT (0.5 s)" in words
    assert NO_NATS in words
    assert "HANDSHAKE_FIRST" in words


PORTS = {
    "cluster": "attempted to connect to route port",
    "leafnodes": "attempted to connect to leaf node port",
}


@pytest.mark.parametrize(("block", "words"), PORTS.items())
def test_another_port_of_a_server_is_named(block: str, words: str) -> None:
    port = free_port()
    name = "name: c," if block == "cluster" else ""
    config = f'{block} {{ {name} listen: "127.0.0.1:{port}" }}'
    with NatsServer(config=config, token="", jetstream=False):
        assert words in failure(f"nats://127.0.0.1:{port}")


def test_an_address_where_nothing_listens_is_named() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    assert failure(url) == (
        f"No connection to NATS at {url}: {url[7:]} refused the connection. Does a NATS server "
        "listen there?"
    )


def test_an_address_that_drops_packets_is_named() -> None:
    with black_hole("127.0.0.1") as port:
        words = failure(f"nats://127.0.0.1:{port}", connect_timeout=0.5)
    assert f"127.0.0.1:{port} did not answer within CONNECT_TIMEOUT (0.5 s)" in words


# TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


Serve = Callable[[str], NatsServer]


@pytest.fixture(scope="module")
def serve(authority: Authority) -> Iterator[Serve]:
    """Yield a function that returns the server that expects TLS in one of the ways."""
    certificate, key = authority.issue("server", "127.0.0.1")
    files = f'cert_file: "{certificate}", key_file: "{key}"'
    configs = {
        "no TLS": "",
        "TLS": f"tls {{ {files} }}",
        "TLS first": f"tls {{ {files}, handshake_first: true, timeout: 60 }}",
        "TLS, first or later": f'tls {{ {files}, handshake_first: "60s" }}',
        "a client's certificate": f'tls {{ {files}, ca_file: "{authority.ca}", verify: true }}',
    }
    running: dict[str, NatsServer] = {}
    with ExitStack() as stack:

        def start(kind: str) -> NatsServer:
            if kind not in running:
                server = NatsServer(config=configs[kind], token="", jetstream=False)
                running[kind] = stack.enter_context(server)
            return running[kind]

        yield start
        process.close()


EXPECTS_NO_TLS_FIRST = "begins in plain text: it does not expect TLS first"
MISMATCHES = [
    ("no TLS", {}, None),
    ("no TLS", {"tls": {}}, "the server offers no TLS, which the settings ask for"),
    ("no TLS", {"tls": {"handshake_first": True}}, EXPECTS_NO_TLS_FIRST),
    ("TLS", {}, "the server requires TLS, and this machine does not accept its certificate"),
    ("TLS", {"tls": {}}, None),
    ("TLS", {"tls": {"handshake_first": True}}, EXPECTS_NO_TLS_FIRST),
    ("TLS first", {"connect_timeout": 0.5}, "it expects TLS first"),
    ("TLS first", {"tls": {}, "connect_timeout": 0.5}, "it expects TLS first"),
    ("TLS first", {"tls": {"handshake_first": True}}, None),
    ("TLS, first or later", {"tls": {"handshake_first": True}}, None),
    ("a client's certificate", {"tls": {}}, "asks for a client's certificate. Set CERT and KEY"),
]


@pytest.mark.parametrize(("server_has", "client_has", "words"), MISMATCHES)
def test_what_one_side_lacks_for_tls_is_named(
    serve: Serve,
    authority: Authority,
    server_has: str,
    client_has: dict[str, Any],
    words: str | None,
) -> None:
    server, options = serve(server_has), dict(client_has)
    if "tls" in options:
        options["tls"] = TLSConfig(ca=authority.ca, **options["tls"])
    if words is not None:
        assert words in failure(server.url, **options)
        return
    session = process.session(ConnectionConfig((server.url,), connect_timeout=60.0, **options))
    drivers.run(session, asking(PATIENT, "nobody"))
    assert session.connected


def test_tls_may_end_at_a_proxy_before_a_plain_server(serve: Serve, authority: Authority) -> None:
    """Such a proxy speaks TLS first, and the server behind it says that it has none."""
    certificate, key = authority.issue("proxy", "127.0.0.1")
    tls = TLSConfig(ca=authority.ca, handshake_first=True)
    with terminator(serve("no TLS").port, certificate, key) as url:
        session = process.session(ConnectionConfig((url,), connect_timeout=60.0, tls=tls))
        drivers.run(session, asking(PATIENT, "nobody"))
        assert session.connected
        process.close()


def test_a_service_that_ignores_the_tls_handshake_is_named(authority: Authority) -> None:
    tls = TLSConfig(ca=authority.ca, handshake_first=True)
    with service(None) as url:
        words = failure(url, tls=tls, connect_timeout=0.5)
    assert "did not complete the TLS handshake within CONNECT_TIMEOUT (0.5 s)" in words


# Logging in ----------------------------------------------------------------------------------


def test_a_login_that_takes_too_long_leads_to_the_option() -> None:
    """The auth callout does not answer."""
    issuer = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
    config = (
        "authorization { timeout: 60, users: [{ user: auth, password: auth }], "
        f"auth_callout {{ issuer: {issuer.public}, auth_users: [auth] }} }}"
    )
    with NatsServer(config=config, token="", jetstream=False) as server, callout(server) as asked:
        session = process.session(
            ConnectionConfig((server.url,), user="u", password="p", connect_timeout=1.0)
        )
        # A slow machine may not get as far within a second, each time.
        assert eventually(lambda: "If it asks an auth callout" in refusal(session))
        assert "did not accept or refuse the login within CONNECT_TIMEOUT (1 s)" in refusal(session)
        assert asked.is_set()
        server.kill()  # it would wait for the answer before it stops


def refusal(session: Session) -> str:
    try:
        drivers.run(session, asking(PATIENT, "nobody"))
    except Unavailable as error:
        return str(error)
    return ""


@contextmanager
def callout(server: NatsServer) -> Iterator[threading.Event]:
    """Run an auth callout that does not answer. Yield an event that is set once it is asked."""
    ready, asked, ending = threading.Event(), threading.Event(), threading.Event()

    async def note(_: object) -> None:
        asked.set()

    async def serve() -> None:
        client = await nats.connect(server.url, user="auth", password="auth", connect_timeout=60)
        await client.subscribe("$SYS.REQ.USER.AUTH", cb=note)
        await client.flush()
        ready.set()
        await asyncio.get_running_loop().run_in_executor(None, ending.wait)
        with suppress(asyncio.CancelledError):  # of nats-py, if the server has just been killed
            await client.close()

    serving = threading.Thread(target=lambda: asyncio.run(serve()))
    serving.start()
    try:
        assert ready.wait(60)
        yield asked
    finally:
        ending.set()
        serving.join()
