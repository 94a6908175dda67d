"""A server that speaks the NATS protocol and sends the replies that a test gives it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from django_nats.client.protocol.wire import Reply
from tests.support.ports import free_port

GREETING = b'INFO {"server_id":"fake","version":"2.15.1","headers":true,"max_payload":1048576}'


class Published(NamedTuple):
    """A message that a client has published."""

    subject: str
    reply: str
    header: bytes
    payload: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.payload or b"{}")


Answer = Callable[[Published], "Iterable[Reply | bytes] | None"]
"""Returns what the server sends for a message: replies and lines of the protocol.

A reply goes to the message's reply subject unless it names another. Lines are sent unchanged.
"""


class FakeServer:
    """A server on 127.0.0.1 that accepts connections inside a ``with`` block."""

    def __init__(self, answer: Answer, *, greeting: bytes = GREETING, login: bytes = b"") -> None:
        self.answer = answer
        self.greeting = greeting
        self.login = login
        """Sent instead of PONG after a client has logged in."""
        self.published: list[Published] = []
        self.connections = 0
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", free_port()))

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FakeServer:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        # close() alone would leave the threads in accept() and recv().
        accepting, *_ = self._threads
        self._end(self._listener)
        accepting.join()
        for peer in self._peers:
            self._end(peer)
        for thread in self._threads:
            thread.join()

    @staticmethod
    def _end(each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()

    def say(self, data: bytes) -> None:
        """Send unrequested data to every client."""
        for peer in self._peers:
            with suppress(OSError):
                peer.sendall(data)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, name="fake", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        subscriptions: dict[str, str] = {}
        lines = peer.makefile("rb")
        with suppress(OSError, ValueError), peer, lines:
            peer.sendall(self.greeting + b"\r\n")
            while line := lines.readline():
                verb, *words = line.split()
                if verb == b"PING":
                    peer.sendall(self.login or b"PONG\r\n")
                elif verb == b"SUB":
                    subscriptions[words[0].decode()] = words[-1].decode()
                elif verb in (b"PUB", b"HPUB"):
                    self._take(peer, subscriptions, verb, words, lines)

    def _take(
        self,
        peer: socket.socket,
        subscriptions: dict[str, str],
        verb: bytes,
        words: list[bytes],
        lines: Any,
    ) -> None:
        sizes = 2 if verb == b"HPUB" else 1
        size = int(words[-1])
        header = int(words[-2]) if sizes == 2 else 0
        data = lines.read(size + 2)[:size]
        reply = words[1].decode() if len(words) > sizes + 1 else ""
        published = Published(words[0].decode(), reply, data[:header], data[header:])
        self.published.append(published)
        if not reply:
            # Deliver it as any server does: a waiting client checks that it hears answers.
            subject = published.subject
            sid = subscriptions.get(f"{subject.rpartition('.')[0]}.*")
            if sid is not None:
                peer.sendall(message(Reply(b"", published.payload), subject, sid))
                return
        # A reply is delivered to the subscription of its subject, or to that of the whole inbox.
        sid = subscriptions.get(reply) or subscriptions.get(f"{reply.rpartition('.')[0]}.*", "0")
        for each in self.answer(published) or ():
            peer.sendall(each if isinstance(each, bytes) else message(each, reply, sid))


def message(reply: Reply, subject: str, sid: str) -> bytes:
    """Return the bytes by which a server delivers a message."""
    header, payload, reply_to, own = reply
    words = [own or subject.encode(), sid.encode(), *([reply_to] if reply_to else [])]
    if not header:
        return b"MSG %b %d\r\n%b\r\n" % (b" ".join(words), len(payload), payload)
    size = len(header)
    head = b"HMSG %b %d %d\r\n" % (b" ".join(words), size, size + len(payload))
    return head + header + payload + b"\r\n"
