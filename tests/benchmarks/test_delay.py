"""The delaying proxy adds the delay it was given, no more, and changes no byte."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.benchmarks.delay import Delay
from tests.conftest import PATIENT

pytestmark = pytest.mark.faults  # they measure real time

ONE_WAY = 0.05
ROUND_TRIP = 2 * ONE_WAY
CHUNK = 256 * 1024


class Echo(socketserver.BaseRequestHandler):
    """Send back all received data, and hang up on "bye"."""

    def handle(self) -> None:
        while data := self.request.recv(CHUNK):
            if data == b"bye":
                return
            self.request.sendall(data)


class Halves(socketserver.BaseRequestHandler):
    """Answer in two pieces, the second after the first has been sent."""

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while self.request.recv(CHUNK):
            self.request.sendall(b"first")
            time.sleep(0.001)  # otherwise they would arrive as one piece
            self.request.sendall(b"second")


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128


@contextmanager
def server_behind_a_delay(
    seconds: float, handler: type[socketserver.BaseRequestHandler] = Echo
) -> Iterator[Delay]:
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Delay(server.server_address[1], seconds) as delay:
                yield delay
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def proxy() -> Iterator[Delay]:
    with server_behind_a_delay(ONE_WAY) as delay:
        yield delay


def connect(proxy: Delay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)


def receive(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (data := client.recv(CHUNK)):
        received += data
    return received


def test_the_delay_applies_each_way(proxy: Delay) -> None:
    with connect(proxy) as client:
        took: list[float] = []
        while len(took) < 3 or (len(took) < 100 and min(took) >= 5 * ROUND_TRIP):
            start = time.monotonic()
            client.sendall(b"ping")
            assert receive(client, 4) == b"ping"
            took.append(time.monotonic() - start)
        assert ROUND_TRIP <= min(took) < 5 * ROUND_TRIP


def test_delays_below_a_millisecond_are_exact() -> None:
    took: list[float] = []
    with server_behind_a_delay(0.0002) as proxy, connect(proxy) as client:
        while len(took) < 200 or (len(took) < 5000 and min(took) >= 0.002):
            start = time.monotonic()
            client.sendall(b"ping")
            receive(client, 4)
            took.append(time.monotonic() - start)
    # The fastest round trip is the least disturbed by other processes. With epoll's clock, which
    # counts whole milliseconds, it would take 2 ms.
    assert 0.0004 <= min(took) < 0.002


def test_a_piece_does_not_wait_for_the_previous_acknowledgement() -> None:
    took: list[float] = []
    with server_behind_a_delay(0.0005, Halves) as proxy, connect(proxy) as client:
        while len(took) < 50 or (len(took) < 1000 and min(took) >= 0.03):
            start = time.monotonic()
            client.sendall(b"ping")
            receive(client, len("firstsecond"))
            took.append(time.monotonic() - start)
    # It would be 41 ms if the kernel held a piece back. A busy machine may delay some rounds.
    assert min(took) < 0.03


def test_many_chunks_are_in_flight_and_stay_in_order() -> None:
    data = os.urandom(20 * 1024 * 1024)
    with server_behind_a_delay(2.0) as proxy, connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        start = time.monotonic()
        sender.start()
        received = receive(client, len(data))
        took = time.monotonic() - start
        sender.join()
    assert received == data
    # At least 80 chunks: forwarded one after the other, they would need 160 seconds.
    assert took < 120


def test_connections_do_not_wait_for_each_other() -> None:
    with server_behind_a_delay(1.0) as proxy, ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy)) for _ in range(100)]
        start = time.monotonic()
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        assert [receive(client, 3) for client in clients] == [b"%03d" % n for n in range(100)]
        assert time.monotonic() - start < 120  # one after the other, they would need 200 seconds


def test_the_end_is_passed_on_after_the_last_bytes(proxy: Delay) -> None:
    with connect(proxy) as client:
        client.sendall(b"last words")
        assert receive(client, 10) == b"last words"
        start = time.monotonic()
        client.sendall(b"bye")
        assert client.recv(1) == b""
        assert time.monotonic() - start >= ROUND_TRIP


def test_the_proxy_hangs_up_if_there_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Delay(port, ONE_WAY) as proxy, connect(proxy) as client:
        assert client.recv(1) == b""


def test_a_pipelined_batch_pays_the_delay_once(server: NatsServer) -> None:
    values = {f"key-{number}": "x" * 100 for number in range(1000)}
    with Delay(server.port, ONE_WAY) as proxy:
        options = {"TOKEN": server.token, "BUCKET": "delayed", "STORAGE": "memory", **PATIENT}
        cache = NatsCache(f"nats://127.0.0.1:{proxy.port}", {"OPTIONS": options})
        cache.set("warm-up", 1)
        start = time.monotonic()
        assert cache.set_many(values) == []
        set_many = time.monotonic() - start
        start = time.monotonic()
        assert cache.get_many(values) == values
        get_many = time.monotonic() - start
        cache.close()
    # One by one they would take 100 seconds.
    assert ROUND_TRIP <= set_many < 50
    assert ROUND_TRIP <= get_many < 50
