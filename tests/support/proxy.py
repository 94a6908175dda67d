"""A TCP proxy between client and server that counts requests and injects faults."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.ports import free_port

_CHUNK = 256 * 1024
_PROBE = b"a message to its own inbox"
"""Replaces the verb of a PUB by which a connection checks that answers still arrive."""
_RESET = struct.pack("ii", 1, 0)  # close() then sends RST, like a host that has lost its state


class Frames:
    """A splitter of one direction of a NATS connection into frames."""

    def __init__(self) -> None:
        self._buffer = b""
        self._skip = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the verbs of the frames that begin in the next part of the stream."""
        verbs: list[bytes] = []
        self._buffer += data
        while True:
            skipped = min(self._skip, len(self._buffer))
            self._buffer = self._buffer[skipped:]
            self._skip -= skipped
            line, end, rest = self._buffer.partition(b"\r\n")
            if self._skip or not end:
                return verbs
            self._buffer = rest
            verb, *words = line.split()
            verbs.append(_PROBE if verb == b"PUB" and words[0].startswith(b"_INBOX.") else verb)
            if verb in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
                self._skip = int(words[-1]) + 2


def _lose_nothing(data: bytes) -> bool:
    return False


class Proxy:
    """A proxy that forwards TCP connections to a port on this machine and counts the requests.

    Data is forwarded to the client after ``delay`` seconds. The delay must not be zero: replies to
    the first requests of a write must not arrive before its last requests have been counted.
    """

    def __init__(self, port: int, delay: float = 0.02) -> None:
        self.delay = delay
        self.lose: Callable[[bytes], bool] = _lose_nothing
        """Returns True for data from the server that is to be dropped."""
        self.refusing = False
        """While true, connections are closed as soon as they are accepted."""
        self.connections = 0
        """The number of connections that clients have opened so far."""
        self.requests = 0
        """The number of messages that clients have published, without those to their own inboxes.

        Clients send the latter when an answer takes long, as on a slow machine.
        """
        self.round_trips = 0
        """The number of times that a client sent one or more requests after receiving a reply."""
        self._answered = True
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", free_port()))

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # close() alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.thaw()
        self.cut()

    # Faults ----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop forwarding and keep every connection open, like a peer that hangs."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Resume forwarding, beginning with the data that was held back."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection. New connections are accepted."""
        for client, upstream in self._take_pairs():
            for each in (client, upstream):
                with suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    # Wake the thread in recv(), whose reference would keep the socket open.
                    each.shutdown(socket.SHUT_RD)
                each.close()

    @contextmanager
    def losing(self, part: bytes) -> Iterator[threading.Event]:
        """Drop data from the server that contains ``part``. Yield an event that is then set."""
        lost, before = threading.Event(), self.lose

        def lose(data: bytes) -> bool:
            if part in data:
                lost.set()
                return True
            return before(data)

        self.lose = lose
        try:
            yield lost
        finally:
            self.lose = before

    def half_close(self) -> None:
        """Close every connection in the direction of the client. Its data is still forwarded."""
        with self._lock:
            for client, _ in self._pairs:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_WR)

    # Forwarding ------------------------------------------------------------------------------

    def _take_pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            # Under the lock, cut() finds every connection that the server has seen, and leaves
            # none if ``refusing`` was set before.
            with self._lock:
                if self.refusing:
                    client.close()
                    continue
                try:
                    upstream = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                for each in (client, upstream):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.append((client, upstream))
            for pump in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pump, args=pump, name="proxy", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        frames = Frames()
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if replies:
                    time.sleep(self.delay)
                    if self.lose(data):
                        continue
                self._flowing.wait()
                with self._lock:
                    (self._note_replies if replies else self._note_requests)(frames.feed(data))
                sink.sendall(data)
        with self._lock, suppress(OSError):
            if any(
                source in pair for pair in self._pairs
            ):  # forward the end of the stream, unless the pair was cut
                sink.shutdown(socket.SHUT_WR)

    def _note_requests(self, verbs: list[bytes]) -> None:
        published = sum(verb in (b"PUB", b"HPUB") for verb in verbs)
        self.requests += published
        if published and self._answered:
            self.round_trips += 1
            self._answered = False

    def _note_replies(self, verbs: list[bytes]) -> None:
        if b"MSG" in verbs or b"HMSG" in verbs:
            self._answered = True
