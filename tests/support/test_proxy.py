"""The proxy of the tests: counted round trips and injected faults."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.proxy import Frames, Proxy

STREAM = (
    b"CONNECT {}\r\nPING\r\nSUB _INBOX.1 1\r\n"
    b"PUB a.b _INBOX.1 11\r\nPUB x 1\r\nz\r\n\r\n"
    b"HPUB a 4 6\r\n\r\n\r\nxy\r\n"
    b"PUB a 0\r\n\r\nPONG\r\n"
)
VERBS = [b"CONNECT", b"PING", b"SUB", b"PUB", b"HPUB", b"PUB", b"PONG"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_frames_are_found_in_parts_of_any_size(size: int) -> None:
    frames = Frames()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [verb for piece in pieces for verb in frames.feed(piece)] == VERBS


@pytest.fixture
def peers() -> Iterator[tuple[Proxy, socket.socket, socket.socket]]:
    """Yield a proxy, a client connected through it, and the server's end of the connection."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
        Proxy(listener.getsockname()[1], delay=0.001) as proxy,
        closing(connect(proxy)) as client,
        closing(listener.accept()[0]) as upstream,
    ):
        upstream.settimeout(60)
        yield proxy, client, upstream


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=60)


Peers = tuple[Proxy, socket.socket, socket.socket]


def test_requests_without_a_reply_in_between_are_one_round_trip(peers: Peers) -> None:
    proxy, client, upstream = peers
    for published in (b"PUB a 0\r\n\r\nPUB b 0\r\n\r\n", b"PUB c 0\r\n\r\n"):
        client.sendall(published)
        assert upstream.recv(100) == published
    assert (proxy.round_trips, proxy.requests) == (1, 3)
    upstream.sendall(b"PONG\r\n")  # is not a reply to a request
    assert client.recv(100) == b"PONG\r\n"
    client.sendall(b"PUB d 0\r\n\r\n")
    upstream.recv(100)
    assert proxy.round_trips == 1
    upstream.sendall(b"MSG a 1 0\r\n\r\n")
    client.recv(100)
    client.sendall(b"PUB e 0\r\n\r\n")
    upstream.recv(100)
    assert (proxy.round_trips, proxy.requests, proxy.connections) == (2, 5, 1)
    upstream.sendall(b"MSG a 1 0\r\n\r\n")
    client.recv(100)
    client.sendall(b"PUB _INBOX.1.probe 0\r\n\r\n")
    upstream.recv(100)
    assert (proxy.round_trips, proxy.requests) == (2, 5)


def test_a_cut_resets_both_ends(peers: Peers) -> None:
    proxy, client, upstream = peers
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionResetError):
        upstream.recv(1)


def test_data_of_the_client_still_arrives_after_half_close(peers: Peers) -> None:
    proxy, client, upstream = peers
    proxy.half_close()
    assert client.recv(1) == b""
    client.sendall(b"PING\r\n")
    assert upstream.recv(100) == b"PING\r\n"


def test_nothing_passes_a_frozen_proxy_until_it_is_thawed(peers: Peers) -> None:
    proxy, client, upstream = peers
    proxy.freeze()
    client.sendall(b"PING\r\n")
    upstream.settimeout(0.05)
    with pytest.raises(TimeoutError):
        upstream.recv(1)
    upstream.settimeout(60)
    thawing = threading.Timer(0.01, proxy.thaw)
    thawing.start()
    assert upstream.recv(100) == b"PING\r\n"
    thawing.join()


def test_a_refusing_proxy_closes_new_connections(peers: Peers) -> None:
    proxy, *_ = peers
    proxy.refusing = True
    with closing(connect(proxy)) as refused:
        assert refused.recv(1) == b""
    assert proxy.connections == 2
