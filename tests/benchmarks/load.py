"""A load generator for web servers: several processes with keep-alive connections.

Each connection has one request at a time.

    python -m tests.benchmarks.load

is one of the processes. It reads its job as JSON from stdin, waits for a second line before it
begins, and writes the result to stdout. It compares the answers with the expected one instead of
parsing them, since it shares the cores with the server: its own processor time lowers the figures.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
PROCESSES = 2
PATIENCE = 15.0
"""The seconds after which the load fails if no answer has arrived."""


class LoadFailed(Exception):
    """The server gave a wrong answer, or none."""


@dataclass(frozen=True)
class Job:
    """The work of one process, which requests each path over a separate connection."""

    port: int
    paths: list[str]
    body: str
    warmup: float
    """Seconds for which requests are not counted."""
    span: float
    """Seconds for which requests are counted."""


@dataclass(frozen=True)
class Load:
    """The times of the answers, in nanoseconds of a clock that all processes share."""

    begin: int
    end: int
    times: list[int]
    """The time from each request to its answer."""

    @property
    def rate(self) -> float:
        """Return the number of requests per second."""
        return len(self.times) / (self.end - self.begin) * 1e9


def put_load(port: int, paths: list[str], body: str, *, warmup: float, span: float) -> Load:
    """Request all paths at the same time, repeatedly, for a number of seconds.

    Raises LoadFailed unless every answer has the status 200 and this body.
    """
    jobs = [Job(port, paths[number::PROCESSES], body, warmup, span) for number in range(PROCESSES)]
    with ExitStack() as stack:
        generators = [stack.enter_context(Generator(job)) for job in jobs]
        for generator in generators:
            generator.wait_until_ready()
        for generator in generators:
            generator.begin()
        loads = [generator.load() for generator in generators]
    return Load(
        begin=min(load.begin for load in loads),
        end=max(load.end for load in loads),
        times=[time for load in loads for time in load.times],
    )


class Generator:
    """A process that does one job."""

    def __init__(self, job: Job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self._write_line(json.dumps(asdict(job)))

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait until the warm-up is over. Raises LoadFailed."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self.load()  # raises LoadFailed, since the process has failed

    def begin(self) -> None:
        self._write_line("")

    def load(self) -> Load:
        """Wait until the job is done, and return its result. Raises LoadFailed."""
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise LoadFailed(errors.strip())
        return Load(**json.loads(output))

    def _write_line(self, line: str) -> None:
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        print(line, file=stdin, flush=True)


# In the process ------------------------------------------------------------------------------


class Client:
    """One connection, which sends the same request repeatedly."""

    def __init__(self, port: int, path: str, body: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._end = b"\r\n\r\n" + body.encode()
        self._received = b""

    def send(self) -> None:
        self.sent = time.monotonic_ns()
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """Receive data. Return True if the answer is complete. Raises LoadFailed."""
        data = self.socket.recv(65536)
        received = self._received + data
        if received.startswith(b"HTTP/1.1 200 ") and received.endswith(self._end):
            self._received = b""
            return True
        head, end, body = received.partition(b"\r\n\r\n")
        if not data or (end and not (head.startswith(b"HTTP/1.1 200 ") and self._may_end(body))):
            raise LoadFailed(f"{self._request!r} was answered with {received!r}")
        self._received = received
        return False

    def _may_end(self, body: bytes) -> bool:
        return self._end.startswith(b"\r\n\r\n" + body)


class Clients:
    """All connections of a process."""

    def __init__(self, job: Job) -> None:
        clients = [Client(job.port, path, job.body) for path in job.paths]
        self._clients = {client.socket.fileno(): client for client in clients}
        self._events = select.epoll()
        for number in self._clients:
            self._events.register(number, select.EPOLLIN)

    def request(self, seconds: float) -> Load:
        """Send requests for a number of seconds, and wait until all are answered.

        Each client sends at least one. The last answers count, and so does the time until they
        arrive: if all connections wait for one thread, 50 answers arrive at a time, and to stop
        earlier would leave some out.
        """
        clock = time.monotonic_ns
        times: list[int] = []
        begin = now = clock()
        end = begin + int(seconds * 1e9)
        for client in self._clients.values():
            client.send()
        awaited = len(self._clients)
        while awaited:
            ready = self._events.poll(PATIENCE)
            if not ready:
                raise LoadFailed(f"No answer within {PATIENCE:g} s")
            for number, _ in ready:
                client = self._clients[number]
                if not client.receive():
                    continue
                now = clock()
                times.append(now - client.sent)
                if now < end:
                    client.send()
                else:
                    awaited -= 1
        return Load(begin, now, times)


def main() -> None:
    job = Job(**json.loads(sys.stdin.readline()))
    try:
        clients = Clients(job)
        clients.request(job.warmup)
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(asdict(clients.request(job.span))))
    except (LoadFailed, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
