"""A server whose name has several addresses is reached, whichever of them do not answer."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from django_nats.client import drivers, process
from django_nats.client.transport import connector
from django_nats.client.transport.addresses import is_address, look_up
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.exceptions import NotSent
from tests.client.lanes import PATIENT, asking
from tests.support.black_hole import Names, black_hole, has_ipv6
from tests.support.certificates import Authority
from tests.support.ports import free_port

NAME = "nats.example"
WITHIN_S = 60.0
"""CONNECT_TIMEOUT. The system itself gives an address up after twice as long."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names(monkeypatch)
    yield found
    process.close()
    found.ending.set()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


Serve = Callable[..., NatsServer]


@pytest.fixture(scope="module")
def serve(authority: Authority) -> Iterator[Serve]:
    """Yield a function that returns a server, the same for the same arguments."""
    certificate, key = authority.issue("server", NAME)
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    running: dict[tuple[str, bool], NatsServer] = {}
    with ExitStack() as stack:

        def start(host: str, *, secure: bool) -> NatsServer:
            if (host, secure) not in running:
                port = free_port()
                config = f'listen: "{f"[{host}]" if ":" in host else host}:{port}"'
                config += f"\n{tls}" if secure else ""
                server = NatsServer(port=port, config=config, token="", jetstream=False)
                running[host, secure] = stack.enter_context(server)
            return running[host, secure]

        yield start
        process.close()


def silent(host: str, port: int) -> socket.socket:
    """Listen on a port that accepts connections and says nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.bind((host, port))
    listener.listen()
    return listener


def session(*servers: str, **options: object) -> Session:
    common = {"connect_timeout": WITHIN_S, "randomize": False}
    return process.session(ConnectionConfig(servers, **{**common, **options}))  # type: ignore[arg-type]


CASES = {
    "IPv4, then IPv4": (["drops 127.0.0.2", "serves 127.0.0.1"]),
    "IPv6, then IPv4": (["drops ::1", "serves 127.0.0.1"]),
    "IPv4, then IPv6": (["drops 127.0.0.2", "serves ::1"]),
    "several that drop packets": (["drops 127.0.0.2", "drops 127.0.0.3", "serves 127.0.0.1"]),
    "one that says nothing": (["silent 127.0.0.2", "serves 127.0.0.1"]),
    "one where nothing listens": (["closed 127.0.0.2", "serves 127.0.0.1"]),
    "one that says nothing, and one that drops packets": (
        ["silent 127.0.0.2", "drops ::1", "serves 127.0.0.1"]
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is on Linux only")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("addresses", CASES.values(), ids=CASES.keys())
@pytest.mark.usefixtures("loop_name")
def test_an_address_that_does_not_answer_is_passed_over(
    names: Names, serve: Serve, authority: Authority, addresses: list[str], secure: bool
) -> None:
    if any(":" in each for each in addresses) and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    places = [each.split() for each in addresses]
    server = serve(places[-1][1], secure=secure)
    names.addresses[NAME] = [host for _, host in places]
    with ExitStack() as stack:
        for kind, host in places:
            if kind == "drops":
                stack.enter_context(black_hole(host, server.port))
            elif kind == "silent":
                stack.enter_context(closing(silent(host, server.port)))
        options = {"tls": TLSConfig(ca=authority.ca)} if secure else {}
        client = session(f"nats://{NAME}:{server.port}", **options)
        drivers.run(client, asking(PATIENT, "nobody"))
        assert client.connected
        process.close()


async def test_both_families_are_tried_in_turn(names: Names) -> None:
    names.addresses[NAME] = ["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"]
    assert await look_up(NAME, 1) == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"]
    names.addresses[NAME] = ["127.0.0.1", "::1", "127.0.0.1"]
    assert await look_up(NAME, 1) == ["127.0.0.1", "::1"]


async def test_the_addresses_of_one_name_share_the_load(names: Names) -> None:
    """The system's order would send every process to the same server."""
    names.addresses[NAME] = ["::1", "::2", "127.0.0.1", "127.0.0.2"]
    turned = await look_up(NAME, 1, lambda each: each.reverse())
    assert turned == ["::2", "127.0.0.2", "::1", "127.0.0.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1"])
async def test_an_address_is_not_looked_up(host: str, names: Names) -> None:
    assert await look_up(host, 1) == [host]
    assert is_address(host)
    assert not is_address(NAME)


async def test_the_interface_of_a_link_local_address_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 1, 0, 7))]

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert await look_up(NAME, 1) == ["fe80::1%7"]


def test_a_name_that_is_not_known_is_named(names: Names) -> None:
    with pytest.raises(
        NotSent, match=r"the name nats\.example cannot be looked up: Name or service"
    ):
        drivers.run(session(f"nats://{NAME}"), asking(PATIENT, "nobody"))


def test_a_name_that_cannot_be_one_is_named() -> None:
    with pytest.raises(NotSent, match=r"the name nats\.\.example cannot be looked up"):
        drivers.run(session("nats://nats..example"), asking(PATIENT, "nobody"))
    process.close()


def test_a_name_that_is_not_known_does_not_keep_others_from_being_tried(
    names: Names, serve: Serve
) -> None:
    server = serve("127.0.0.1", secure=False)
    client = session(f"nats://{NAME}", server.url)
    drivers.run(client, asking(PATIENT, "nobody"))
    assert client.connected


@pytest.mark.usefixtures("loop_name")
def test_names_that_are_not_looked_up_do_not_keep_others_from_being_tried(
    names: Names, serve: Serve
) -> None:
    """uvloop's own look-up has four threads."""
    silent_names = [f"silent{number}.example" for number in range(5)]
    names.silent.update(silent_names)
    names.addresses[NAME] = ["127.0.0.1"]
    server = serve("127.0.0.1", secure=False)
    client = session(*(f"nats://{each}" for each in silent_names), f"nats://{NAME}:{server.port}")
    drivers.run(client, asking(PATIENT, "nobody"))
    assert client.connected


class Reversing:
    """A source of random order that reverses the order."""

    shuffle = staticmethod(list.reverse)


@pytest.mark.parametrize(("randomize", "port"), [(False, 0), (True, 1)])
def test_the_order_of_servers_is_kept_if_settings_say_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, randomize: bool, port: int
) -> None:
    monkeypatch.setattr(connector, "_chance", Reversing())
    servers = [serve("127.0.0.1", secure=False), serve("127.0.0.2", secure=False)]
    urls = [f"nats://127.0.0.{number}:{each.port}" for number, each in enumerate(servers, 1)]
    client = session(*urls, randomize=randomize)
    drivers.run(client, asking(PATIENT, "nobody"))
    assert client.connection is not None
    assert client.connection.connected_url.port == servers[port].port
    process.close()
