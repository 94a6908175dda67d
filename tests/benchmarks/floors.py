"""The floors: blocking sockets that do no more than the protocol requires.

They have the methods of a cache that the questions use: text in UTF-8 instead of pickles, one
connection, one thread, no reconnecting, no clusters. They are of no practical use, but no client in
Python can be faster.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django_nats.client.counters.config import CounterConfig
from django_nats.client.kv.config import BucketConfig
from django_nats.client.streams.config import StreamConfig

_ROOM = 8 * 1024 * 1024


class Channel:
    """A connection with a buffer that holds all available data after one read."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def send(self, data: bytes) -> None:
        """Send all of the bytes."""
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()

    def line(self) -> bytes:
        """Return the next line, without its line ending."""
        while (end := self._buffer.find(b"\r\n", self._start, self._end)) < 0:
            self._read()
        line = bytes(self._view[self._start : end])
        self._start = end + 2
        return line

    def block(self, size: int) -> bytes:
        """Return the next ``size`` bytes, and skip the line ending that follows them."""
        while self._end - self._start < size + 2:
            self._read()
        start, self._start = self._start, self._start + size + 2
        return bytes(self._view[start : start + size])

    def _read(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _ROOM:
            left = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, len(left)
            self._view[: self._end] = left
        got = self._socket.recv_into(self._view[self._end :])
        if not got:
            raise ConnectionError("The server has closed the connection")
        self._end += got


class NatsSocket:
    """A connection to NATS with one subscription, which receives all replies."""

    def __init__(self, location: str) -> None:
        host, _, port = location.partition(":")
        # A random subject: there is a floor for each route, and if they shared a subject, each
        # would receive the replies of the other.
        self._inbox = f"_INBOX.floor.{secrets.token_hex(8)}".encode()
        self._channel = Channel(host, int(port))
        self._channel.line()  # INFO
        connect = {"verbose": False, "headers": True, "lang": "python", "version": "0"}
        self._channel.send(
            b"CONNECT %b\r\nSUB %b 1\r\n" % (json.dumps(connect).encode(), self._inbox)
        )

    def close(self) -> None:
        self._channel.close()

    def _create(self, config: StreamConfig) -> None:
        create = f"$JS.API.STREAM.CREATE.{config.stream}"
        self._channel.send(self._publish(create, json.dumps(config.stream_config()).encode()))
        _acknowledged(self._reply()[1])

    def _publish(self, subject: str, payload: bytes) -> bytes:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), self._inbox, len(payload), payload)

    def _reply(self) -> tuple[bytes, bytes]:
        """Return the header and the payload of the next message."""
        while True:
            verb, *words = self._channel.line().split()
            if verb == b"HMSG":
                size = int(words[-2])
                block = self._channel.block(int(words[-1]))
                return block[:size], block[size:]
            if verb == b"MSG":
                return b"", self._channel.block(int(words[-1]))
            if verb == b"PING":
                self._channel.send(b"PONG\r\n")
            elif verb == b"-ERR":
                raise ConnectionError(b" ".join(words).decode())


class NatsFloor(NatsSocket):
    """A key-value bucket."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(location)
        bucket = BucketConfig("floor")
        self._subject = f"$KV.{bucket.name}."
        self._direct = f"$JS.API.DIRECT.GET.{bucket.stream}"
        self._create(bucket)

    def get(self, key: str) -> str | None:
        self._channel.send(
            b"PUB %b.%b%b %b 0\r\n\r\n"
            % (self._direct.encode(), self._subject.encode(), key.encode(), self._inbox)
        )
        header, payload = self._reply()
        return None if header.startswith(b"NATS/1.0 404") else payload.decode()

    def set(self, key: str, value: str, timeout: int) -> None:
        self._channel.send(self._store(key, value, timeout))
        _acknowledged(self._reply()[1])

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        subjects = [self._subject + key for key in keys]
        request = json.dumps({"multi_last": subjects}).encode()
        self._channel.send(self._publish(self._direct, request))
        found: dict[str, str] = {}
        marker = b"\r\nNats-Subject: " + self._subject.encode()
        while True:
            header, payload = self._reply()
            start = header.find(marker)
            if start < 0:
                return found  # the end of the batch
            start += len(marker)
            key = header[start : header.index(b"\r\n", start)]
            found[key.decode()] = payload.decode()

    def set_many(self, data: Mapping[str, str], timeout: int) -> list[str]:
        self._channel.send(b"".join([self._store(*item, timeout) for item in data.items()]))
        for _ in data:
            _acknowledged(self._reply()[1])
        return []

    def _store(self, key: str, value: str, timeout: int) -> bytes:
        header = b"NATS/1.0\r\nNats-TTL: %d\r\n\r\n" % timeout
        payload = value.encode()
        return b"HPUB %b%b %b %d %d\r\n%b%b\r\n" % (
            self._subject.encode(),
            key.encode(),
            self._inbox,
            len(header),
            len(header) + len(payload),
            header,
            payload,
        )


class CounterFloor(NatsSocket):
    """Counters whose increments have no ids.

    An increment whose acknowledgement is lost may therefore be counted twice.
    """

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(location)
        config = CounterConfig("FLOOR", "floor", storage="memory", history=1)
        self._subject = f"{config.prefix}."
        self._create(config)

    def get(self, key: str) -> int:
        return self.incr(key, 0)

    def set(self, key: str, value: int | str, timeout: float | None) -> None:
        self.incr(key, int(value) - self.incr(key, 0))

    def incr(self, key: str, delta: int = 1) -> int:
        self._channel.send(self._increment(key, delta))
        return _total(self._reply()[1])

    def _increment(self, key: str, delta: int) -> bytes:
        header = b"NATS/1.0\r\nNats-Incr: %+d\r\n\r\n" % delta
        return b"HPUB %b%b %b %d %d\r\n%b\r\n" % (
            self._subject.encode(),
            key.encode(),
            self._inbox,
            len(header),
            len(header),
            header,
        )


class LimitFloor(CounterFloor):
    """Counters that are incremented, and others that are read, in one write."""

    def hit(self, counters: Sequence[str], asked: Sequence[str]) -> list[int]:
        """Return the totals of ``counters``. Those of ``asked`` are only read."""
        requests = [self._increment(counter, 1) for counter in counters]
        requests += [
            self._publish(f"$JS.API.DIRECT.GET.FLOOR.{self._subject}{counter}", b"")
            for counter in asked
        ]
        self._channel.send(b"".join(requests))
        totals: list[int] = []
        # Answers of two kinds may overtake each other: only those to reads have a header.
        for _ in requests:
            header, payload = self._reply()
            if not header:
                totals.append(_total(payload))
        return totals


def _total(payload: bytes) -> int:
    _acknowledged(payload)
    return int(json.loads(payload)["val"])


def _acknowledged(payload: bytes) -> None:
    if b'"error"' in payload or not payload:
        raise ConnectionError(f"The server refused the request: {payload.decode()}")


class RedisFloor:
    """Redis commands over a socket, in RESP 2."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        address, _, database = location.partition("/")
        host, _, port = address.partition(":")
        self._channel = Channel(host, int(port))
        self._channel.send(_command(b"SELECT", database.encode()))
        self._done()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def get(self, key: str) -> str | None:
        self._channel.send(_command(b"GET", key.encode()))
        return self._bulk()

    def set(self, key: str, value: str, timeout: int) -> None:
        self._channel.send(_setex(key, value, timeout))
        self._done()

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        wanted = list(keys)
        self._channel.send(_command(b"MGET", *(key.encode() for key in wanted)))
        self._channel.line()  # the number of values
        values = {key: self._bulk() for key in wanted}
        return {key: value for key, value in values.items() if value is not None}

    def set_many(self, data: Mapping[str, str], timeout: int) -> list[str]:
        self._channel.send(b"".join([_setex(*item, timeout) for item in data.items()]))
        for _ in data:
            self._done()
        return []

    def _bulk(self) -> str | None:
        size = int(self._channel.line()[1:])
        return None if size < 0 else self._channel.block(size).decode()

    def _done(self) -> None:
        line = self._channel.line()
        if line != b"+OK":
            raise ConnectionError(f"Redis refused the command: {line.decode()}")


def _setex(key: str, value: str, timeout: int) -> bytes:
    return _command(b"SETEX", key.encode(), b"%d" % timeout, value.encode())


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (
        len(words),
        b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]),
    )
