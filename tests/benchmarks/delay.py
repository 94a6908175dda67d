"""A network on loopback: a TCP proxy that passes everything on a fixed time later.

    python -m tests.benchmarks.delay PORT SECONDS

forwards to 127.0.0.1:PORT, prints the port it listens on and ends when its stdin does. Only
latency is added: bandwidth stays what loopback has, nothing is lost, and a connection is
established at once (a real one would cost its client another round trip). The proxy's own part,
two more processes to wake, comes on top: about 0.2 ms to a round trip on two virtual cores.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable

ROUND_TRIP = 0.001
"""Seconds a request and its reply are under way on the delayed route."""


_PR_SET_TIMERSLACK = 29


class Delay:
    """A delaying proxy in a process of its own, while the context lasts.

    What reaches it for 127.0.0.1:``port`` or comes back from there is ``seconds`` under way.
    """

    def __init__(self, port: int, seconds: float = ROUND_TRIP / 2) -> None:
        self._arguments = [str(port), str(seconds)]
        self.port = 0
        """Where it listens, once the context has been entered."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Delay:
        # Not a module by its name only: the caller may have another working directory.
        command = [sys.executable, __file__, *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()


class FineSelector(selectors.EpollSelector):
    """epoll waits for whole milliseconds, and so does uvloop: select() waits for less."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class Line:
    """What is under way, over all connections: first in, first out, since all take as long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._under_way: deque[tuple[float, Callable[[bytes], object], bytes]] = deque()

    def carry(self, deliver: Callable[[bytes], object], data: bytes) -> None:
        """Have the data delivered when its time has come."""
        due = self._loop.time() + self._seconds
        self._under_way.append((due, deliver, data))
        if len(self._under_way) == 1:
            self._loop.call_at(due, self._arrive)

    def _arrive(self) -> None:
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now:
            _, deliver, data = self._under_way.popleft()
            deliver(data)
        if self._under_way:
            self._loop.call_at(self._under_way[0][0], self._arrive)


class End(asyncio.Protocol):
    """One end of a forwarded connection; ``other`` is where its bytes go."""

    transport: asyncio.Transport

    def __init__(self, line: Line, other: End | None = None) -> None:
        self._line = line
        self.other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # asyncio sees to it only where a socket was made with the protocol's number, which those
        # accepted here were not: each second piece of an answer would wait for the client's
        # acknowledgement of the first, 40 ms later.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self._line.carry(self.other.transport.write, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self._line.carry(self.other.close, b"")

    def close(self, _: bytes) -> None:
        self.transport.close()


class Entrance(End):
    """The end a client connects to; it reads once the server's end is there."""

    def __init__(self, line: Line, port: int) -> None:
        super().__init__(line)
        self._port = port
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)  # Python 3.10 reads once, paused or not
        else:
            super().data_received(data)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, self.other = await loop.create_connection(
                lambda: End(self._line, self), "127.0.0.1", self._port
            )
            for data in self._early:
                self.data_received(data)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()


def main() -> None:
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    # Ctrl-C reaches the whole group; this ends when the one that started it has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By default Linux may be 50 µs late to spare wake-ups, a tenth of what is measured out here.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    loop = asyncio.SelectorEventLoop(FineSelector())
    line = Line(loop, seconds)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    loop.run_until_complete(loop.create_server(lambda: Entrance(line, port), sock=listener))
    print(listener.getsockname()[1], flush=True)
    loop.add_reader(sys.stdin, loop.stop)
    loop.run_forever()


if __name__ == "__main__":
    main()
