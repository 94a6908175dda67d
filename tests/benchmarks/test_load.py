"""The load generator awaits, compares and counts every answer."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.benchmarks.load import LoadFailed, put_load

PATHS = [f"/view?user={user}" for user in range(6)]


class Site(BaseHTTPRequestHandler):
    """Answer "right" to all requests, except one user's second, which gets ``odd`` if it is set.

    Hang up after an odd answer whose body is shorter than announced.
    """

    protocol_version = "HTTP/1.1"
    asked: Counter[str]
    connections: set[tuple[str, int]]
    odd: bytes | None

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.connections.add(self.client_address)
        if self.odd is not None and self.path == PATHS[3] and self.asked[self.path] == 2:
            self.wfile.write(self.odd)
            self.close_connection = len(self.odd.partition(b"\r\n\r\n")[2]) < 5
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
        self.wfile.write(b"\r\nri")  # in pieces, as gunicorn sends it
        self.wfile.write(b"ght")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def site(odd: bytes | None = None) -> Iterator[tuple[int, type[Site]]]:
    handler = type("Handler", (Site,), {"asked": Counter(), "connections": set(), "odd": odd})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, handler
        finally:
            server.shutdown()
            thread.join()


def test_every_path_is_requested_over_its_own_connection() -> None:
    with site() as (port, handler):
        start = time.monotonic()
        load = put_load(port, PATHS, "right", warmup=0, span=0.2)
        took = time.monotonic() - start
    assert set(handler.asked) == set(PATHS)
    assert len(handler.connections) == len(PATHS)
    # All except the warm-up's: with warmup=0 that is one answer for each path.
    assert len(load.times) == handler.asked.total() - len(PATHS)
    assert 0.2 <= (load.end - load.begin) / 1e9 <= took
    assert load.rate == len(load.times) / (load.end - load.begin) * 1e9
    # Each connection had one request at a time, for as long as the load lasted.
    assert sum(load.times) <= len(PATHS) * (load.end - load.begin)


@pytest.mark.parametrize(
    "odd",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nright",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nright!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrig",
        b"",
    ],
    ids=["status", "body", "longer", "shorter", "nothing"],
)
def test_one_wrong_answer_fails_the_load(odd: bytes) -> None:
    reason = re.escape(f"was answered with {odd!r}")
    with site(odd) as (port, _), pytest.raises(LoadFailed, match=reason):
        put_load(port, PATHS, "right", warmup=0, span=0.1)


def test_a_missing_server_fails_the_load() -> None:
    with site() as (port, _):
        pass
    with pytest.raises(LoadFailed, match="ConnectionRefused"):
        put_load(port, PATHS, "right", warmup=0, span=0.1)
