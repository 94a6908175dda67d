"""Worker processes on one bucket, and a record of everything the server stores in it."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from django_nats import keys as key_names
from django_nats.cache import NatsCache
from django_nats.client.protocol import timestamps, wire
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from django_nats.exceptions import NatsError
from tests.conftest import PATIENT, api

ROOT = Path(__file__).parents[2]
_LIFETIME = re.compile(rb"Django-Nats: [^\r]*(ms|at)=([0-9]+)")


def _key(name: str) -> str:
    """Return the user's key of a KV key of version 1 without prefix."""
    return (key_names.decode(name) or "").removeprefix(":1:")


def _epoch() -> float:
    """Return the seconds by which the time of day is ahead of the monotonic clock."""
    while True:
        before, now, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < 0.001:
            return now - after


class Stored(NamedTuple):
    """A message as the server stored it, with times in seconds since 1970."""

    sequence: int
    value: int | None
    """None for a tombstone."""
    at: float
    expires: float | None


class Record:
    """A record of every message that a stream stores. The server republishes them to it."""

    def __init__(self, server: NatsServer, bucket: str) -> None:
        self.stored: dict[str, list[Stored]] = defaultdict(list)
        """Keyed by the name of the key."""
        self.clears: list[Stored] = []
        self.last = 0
        self._bucket = bucket
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._stream = self._socket.makefile("rb")
        options = json.dumps({"auth_token": server.token, "verbose": False, "headers": True})
        self._stream.readline()
        self._socket.sendall(f"CONNECT {options}\r\nSUB record.> 1\r\nPING\r\n".encode())
        while self._stream.readline() != b"PONG\r\n":
            pass
        self._thread = threading.Thread(target=self._listen, name="record", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):  # the server has closed the connection
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._stream.close()
        self._socket.close()

    def _listen(self) -> None:
        # close() may cut a message short, but none that settle() has waited for. If the server is
        # still sending then, the connection is reset.
        with suppress(ConnectionResetError):
            self._take_messages()

    def _take_messages(self) -> None:
        while (line := self._stream.readline()).endswith(b"\n"):
            verb, *words = line.split()
            if verb == b"PING":
                with suppress(OSError):  # what was received before close() is still read after it
                    self._socket.sendall(b"PONG\r\n")
            elif verb == b"HMSG":
                header_size, size = map(int, words[-2:])
                body = self._stream.read(size + 2)
                if len(body) == size + 2:
                    self._note(body[:header_size], body[header_size:size])

    def _note(self, header: bytes, payload: bytes) -> None:
        sequence = int(wire.field(header, "Nats-Sequence") or "")
        subject = wire.field(header, "Nats-Subject") or ""
        at = timestamps.epoch((wire.field(header, "Nats-Time-Stamp") or "").encode())
        name = subject.removeprefix(f"$KV.{self._bucket}.")
        if name == key_names.CLEAR:
            self.clears.append(Stored(sequence, None, at, None))
        elif wire.is_tombstone(header):
            self.stored[_key(name)].append(Stored(sequence, None, at, None))
        else:
            lifetime = _LIFETIME.search(header)
            expires = None
            if lifetime is not None:
                expires = int(lifetime[2]) / 1000 + (at if lifetime[1] == b"ms" else 0)
            stored = Stored(sequence, int(payload), at, expires)
            self.stored[_key(name)].append(stored)
        self.last = sequence


class Worker:
    """A process with its own cache."""

    def __init__(self, parameters: list[Any], mutation: str) -> None:
        arguments = json.dumps([parameters, mutation])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nearcache.worker", arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.near = "NEAR_CACHE" in parameters[1]["OPTIONS"]

    def begin(self, *threads: list[list[Any]], loop: list[list[Any]] | None = None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"threads": threads, "loop": loop or []}) + "\n")
        self.process.stdin.flush()

    def end(self) -> list[dict[str, Any]]:
        assert self.process.stdout is not None
        return list(json.loads(self.process.stdout.readline()))

    def do(self, *op: Any) -> Any:
        """Run one operation and return its result."""
        done = self.attempt(*op)
        assert done["error"] is None, done
        return done["returned"]

    def attempt(self, *op: Any) -> dict[str, Any]:
        """Run one operation and return its outcome, with the error if it failed."""
        self.begin([list(op)])
        (done,) = self.end()
        return dict(done)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Fleet:
    """Workers with and without a near cache, on a new bucket."""

    def __init__(
        self,
        server: NatsServer,
        *,
        near: int = 2,
        plain: int = 1,
        mutation: str = "",
        location: str = "",
        timeout: float = PATIENT["REQUEST_TIMEOUT"],
        **members: Any,
    ) -> None:
        """Store the settings of the workers.

        ``location`` is for the workers with a near cache, ``timeout`` is the REQUEST_TIMEOUT of
        all workers in seconds, and ``members`` are members of NEAR_CACHE.
        """
        self.bucket = f"fleet_{secrets.token_hex(6)}"
        self.server = server
        self._exit = ExitStack()
        self._near = near
        self._plain = plain
        self._mutation = mutation
        self._location = location or server.url
        self._timeout = timeout
        self._members = members

    def __enter__(self) -> Fleet:
        options = {"BUCKET": self.bucket, "TOKEN": self.server.token, **PATIENT}
        self.cache = NatsCache(self.server.url, {"OPTIONS": options})
        options["REQUEST_TIMEOUT"] = self._timeout
        self.cache.get("first")  # creates the bucket
        self.epoch = _epoch()
        """Seconds by which the server's clock (this machine's) is ahead of the monotonic clock."""
        name = f"KV_{self.bucket}"
        config = api(self.cache, f"STREAM.INFO.{name}")["config"]
        config["republish"] = {"src": ">", "dest": "record.>"}
        assert "error" not in api(self.cache, f"STREAM.UPDATE.{name}", config)
        with ExitStack() as exit:
            self.record = Record(self.server, self.bucket)
            exit.callback(self.record.close)
            self.cache.set("first", 0, None)
            near = {"OPTIONS": {**options, "NEAR_CACHE": self._members}}
            plain = {"OPTIONS": options}
            self.workers = []
            for location, parameters in (
                *[(self._location, near)] * self._near,
                *[(self.server.url, plain)] * self._plain,
            ):
                worker = Worker([location, parameters], self._mutation)
                exit.callback(worker.stop)
                self.workers.append(worker)
            for worker in self.workers:
                self.wait_until_served(worker)
            self._exit = exit.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()
        api(self.cache, f"STREAM.DELETE.KV_{self.bucket}")

    def wait_until_served(self, worker: Worker) -> None:
        """Wait until the worker makes and serves copies, or reads if it has no near cache."""
        wanted = ["serves" if worker.near else "get", "first"]

        def served() -> bool:  # a slow server may count as unreachable for a moment
            done = worker.attempt(*wanted)
            return done["error"] is None and (done["returned"] or not worker.near)

        assert eventually(served, time.monotonic() + 60)
        # Values live for fractions of a second, and the model allows only a small clock error.
        known = partial(worker.attempt, "learn_the_time")
        assert eventually(lambda: known()["returned"], time.monotonic() + 60)

    def settle(self) -> None:
        """Wait until the record holds everything that has been stored so far."""
        name = f"STREAM.INFO.KV_{self.bucket}"
        end = time.monotonic() + 60

        def is_complete() -> bool:
            with suppress(NatsError):  # a server that was paused may still count as unreachable
                return bool(api(self.cache, name)["state"]["last_seq"] <= self.record.last)
            return False

        assert eventually(is_complete, end)

    def flood(self, seconds: float = 0.0) -> None:
        """Store at least 20,000 values of other keys, for at least ``seconds``.

        The server sends about half of them to a reader that does not read.
        """
        end = time.monotonic() + seconds
        values = {f"flood:{'x' * 200}:{number}": number for number in range(500)}
        for rounds in itertools.count(1):
            self.cache.set_many(values, None)
            if rounds >= 40 and time.monotonic() >= end:
                return
