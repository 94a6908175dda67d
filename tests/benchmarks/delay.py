"""A TCP proxy that adds the latency of a network, by forwarding all data after a fixed delay.

    python -m tests.benchmarks.delay PORT SECONDS

forwards to 127.0.0.1:PORT, prints the port it listens on, and exits when its stdin is closed. It
adds only latency: bandwidth is that of loopback, no data is lost, and connections are established
at once (on a real network a client would wait for another round trip). The proxy itself adds
about 0.2 ms to a round trip on two virtual cores, since it is woken in each direction.
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
"""The seconds that the delayed route adds to a request and its reply."""


_PR_SET_TIMERSLACK = 29


class Delay:
    """A context manager that runs a delaying proxy in another process.

    It forwards to 127.0.0.1:``port`` and delays all data by ``seconds`` in each direction.
    """

    def __init__(self, port: int, seconds: float = ROUND_TRIP / 2) -> None:
        self._arguments = [str(port), str(seconds)]
        self.port = 0
        """The port it listens on. 0 before the context is entered."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Delay:
        # By path, not with -m: the working directory may not be the project.
        command = [sys.executable, __file__, *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()


class FineSelector(selectors.EpollSelector):
    """A selector that can wait for less than a millisecond.

    epoll, and therefore uvloop, waits for whole milliseconds. select() does not.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class Line:
    """The data of all connections that is being delayed.

    It is first in, first out, since all data is delayed by the same time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._under_way: deque[tuple[float, Callable[[bytes], object], bytes]] = deque()

    def carry(self, deliver: Callable[[bytes], object], data: bytes) -> None:
        """Call ``deliver`` with the data after the delay."""
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
    """One end of a forwarded connection. Its data is sent to the ``other`` end."""

    transport: asyncio.Transport

    def __init__(self, line: Line, other: End | None = None) -> None:
        self._line = line
        self.other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # asyncio sets TCP_NODELAY only on sockets that were created with the protocol's number.
        # Accepted sockets are not: the second piece of an answer would wait for the client's
        # acknowledgement of the first piece, which takes 40 ms.
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
    """The end that a client connects to. It reads once the other end is connected."""

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
            self._early.append(data)  # Python 3.10 reads once even if reading is paused
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
    # Ctrl-C reaches the whole process group. This process exits when its parent has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By default Linux wakes a process up to 50 µs late, which is a tenth of the usual delay.
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
