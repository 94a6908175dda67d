"""One TCP connection: many callers' requests multiplexed over a nats-py client.

nats-py connects, authenticates, speaks TLS and pings; from then on this class reads what comes
in, before nats-py builds its own messages and wakes its own tasks, most of what a request would
cost. A connection lives once: when it is lost, every waiter is told, and the session makes a new
one.

It leans on these private names of nats-py, held in place by tests/client/test_nats_contract.py:
``Client._read_loop``, ``_send_ping``, ``_process_info``, ``_process_pong``, ``_process_err``,
``_process_op_err``, ``_pongs``, ``_reading_task``, ``_pings_outstanding``, ``_transport`` and
``TcpTransport._io_writer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from nats.aio.client import Client

from ..exceptions import NotSent, OutcomeUnknown
from .faults import explain, without_frames
from .outstanding import INBOX_SID, Outstanding
from .parser import Parser
from .shared import AVAILABLE, PIECE, SharedSocket, is_interruption, keep_waiting_bytes_here
from .steps import Lane
from .sweep import Sweep
from .waiter import Waiter
from .wire import Reply

logger = logging.getLogger("django_nats")

PING_INTERVAL = 1.5
"""Seconds; three unanswered in a row make the connection count as lost."""
HIGH_WATER = 8 * 1024 * 1024
"""Bytes in the transport's buffer beyond which further requests wait outside of it."""

_LOOK = 0.002
_LAST_FLUSH = 0.5
_LEAST_FLOW = 256 * 1024  # bytes; what leaves more slowly than this in a timeout counts as stuck


class Connection(Client):
    """A connection and those who wait for replies on it.

    Everything runs on the loop's thread, but for a caller that is alone: what it shares with the
    loop, the way to the socket and those who wait, is under ``outstanding``'s lock.
    """

    _transport: Any  # nats-py's: None only until open() returns, as is the next
    _reading_task: Any

    def __init__(
        self, on_timeout: Callable[[Lane], str | None], on_heard: Callable[[], None]
    ) -> None:
        super().__init__()
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Done, with the driver's error, when the connection is gone for good."""
        self.flowed = monotonic()
        self.outstanding = Outstanding(self._unsubscribe)
        self._written = self._gone = 0
        self._owed = b""
        self._handed = self._closing = False
        self._on_heard = on_heard
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(self.outstanding.take, self._take_line)
        self._shared: SharedSocket | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._sweep = Sweep(self, on_timeout)
        self._inbox = b""
        self._needs_tls = False

    async def open(self, server: str, options: dict[str, Any], inbox_prefix: str) -> None:
        """Connect to one server, once. Raises what nats-py or the socket raised."""
        self._needs_tls = "tls" in options or server.startswith("tls:")
        try:
            await self.connect(
                servers=[server],
                allow_reconnect=False,
                pending_size=0,
                ping_interval=PING_INTERVAL,  # type: ignore[arg-type]  # only slept for
                max_outstanding_pings=2,
                inbox_prefix=inbox_prefix,
                error_cb=self._error,
                closed_cb=self._closed,
                **options,
            )
            keep_waiting_bytes_here(self._transport._io_writer.get_extra_info("socket"))
            self._inbox = f"{inbox_prefix}.{secrets.token_hex(11)}.".encode()
            self.outstanding.open(self._inbox)
            self._transport.write(b"SUB %b* %b\r\n" % (self._inbox, INBOX_SID))
            self._reading_task.add_done_callback(self._ended)
            await self.flush()
            if self.last_error is not None:  # no answer would ever come
                raise NotSent(f"{self.last_error} (INBOX_PREFIX is where answers come in)")
        except BaseException:
            self.abort()
            raise

    # Sending ---------------------------------------------------------------------------------

    def send(self, queue: deque[Waiter]) -> bool:
        """Write what is queued, in one write. False when the peer is slow and some had to stay."""
        if self.lost.done():
            return True  # the session is about to know, and refuses what is queued
        with self.outstanding.lock:
            frames: list[bytes] = []
            room = HIGH_WATER - self._buffered()
            while queue and room > 0:
                waiter = queue.popleft()
                if not waiter.abandoned:
                    room -= self._enlist(waiter, frames)
            if frames:
                self._write(b"".join(frames))
        self._sweep.begin()
        return room > 0 or not queue

    def carry(self, waiter: Waiter) -> bool:
        """Write on the caller's own thread, if nobody else is waiting for anything.

        A caller that blocks reads there too, for a moment. In company the loop's way is the
        better one: it writes for all at once.
        """
        shared = self._shared
        if shared is None or self.outstanding:
            return False
        if waiter.blocking:
            return self._converse(waiter, shared)
        if self._write_alone(waiter, shared):
            self._watch_over()
            return True
        return False

    def make_way(self) -> None:
        """Before a caller waits for the loop: raises NotSent where that would wait for it."""
        inside = self.outstanding.lock._is_owned()  # type: ignore[attr-defined]
        if inside or (self._shared is not None and not self._shared.give_way()):
            raise NotSent("A signal's handler has interrupted another call, which is not at rest")

    def _converse(self, waiter: Waiter, shared: SharedSocket) -> bool:
        waiter.shared, waiter.thread = shared, get_ident()
        try:
            if not shared.begin_reading(waiter) or not self._write_alone(waiter, shared):
                return False
            shared.read_until(waiter, waiter.is_answered)
        finally:
            shared.end_reading(waiter)
        if waiter.left:
            self._watch_over()
        return True

    def _write_alone(self, waiter: Waiter, shared: SharedSocket) -> bool:
        with self.outstanding.lock:
            # What the transport has not passed on yet must not be overtaken, nor cut in two.
            if self.outstanding or self._handed or self._owed or self._closing:
                return False
            if self.lost.done():
                return False
            try:
                frames: list[bytes] = []
                self._enlist(waiter, frames)
                data = b"".join(frames)
                # What is large is the loop's, which knows how much of it has left.
                sent = shared.send(data) if len(data) <= PIECE else 0
                if sent < len(data):
                    self._owed = data[sent:]
                    self._soon(self._write, b"")
            except BaseException as error:
                self._fail_from_anywhere(error)  # nobody knows how much of it is out
                if is_interruption(error):
                    raise
            return True

    def _enlist(self, waiter: Waiter, frames: list[bytes]) -> int:
        waiter.connection = self
        size = self.outstanding.enlist(waiter, frames, self.max_payload)
        self._written += size
        waiter.end = self._written
        return size

    def listen(self, hear: Callable[[Reply], None]) -> tuple[bytes, str]:
        """Subscribe; the subscription's id, and the subject whose messages the function gets."""
        sid, subject = self.outstanding.listen(hear)
        self._write(b"SUB %b %b\r\n" % (subject, sid))
        return sid, subject.decode()

    def unlisten(self, sid: bytes) -> None:
        self.outstanding.unlisten(sid)
        self._unsubscribe(sid)

    def post(self, subject: bytes) -> None:
        """Send an empty message whose answer is dropped, from any thread."""
        self._soon(self._write, b"PUB %b %b0 0\r\n\r\n" % (subject, self._inbox))

    async def ping(self) -> None:
        """Wait until all that the server had sent before this question has been read."""
        answered = self._loop.create_future()
        await self._send_ping(answered)
        await asyncio.wait({answered, self.lost}, return_when=asyncio.FIRST_COMPLETED)

    def _watch_over(self) -> None:
        """Sweep, from any thread."""
        if not self._sweep.armed:
            self._soon(self._sweep.begin)

    def _buffered(self) -> int:
        """The bytes that have been written and not left yet; notes when they go on leaving."""
        buffered: int = self._transport._io_writer.transport.get_write_buffer_size()
        buffered += len(self._owed)
        gone = self._written - buffered
        if gone - self._gone >= _LEAST_FLOW:
            self._gone, self.flowed = gone, monotonic()
            # Pings queue up behind the rest: that they are late does not make the peer stale.
            self._pings_outstanding = 0
        return buffered

    def _write(self, data: bytes) -> None:
        with self.outstanding.lock:
            data, self._owed = self._owed + data, b""
            try:
                self._transport.write(data)
            except Exception as error:
                self.lose(error)  # uvloop's transports raise once they are closed
            if not self._handed:
                self._handed = True
                self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Whether the transport has passed on what it was handed. Asked from another thread, it
        may say so in the middle of a write."""
        if self._buffered() and not self.lost.done():
            self._loop.call_later(_LOOK, self._look)
        else:
            self._handed = False

    # Receiving -------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        """What nats-py runs as its reader, once connected."""
        transport = self._transport._io_writer.transport
        if AVAILABLE and transport.get_extra_info("ssl_object") is None:
            transport.pause_reading()
            # What had come in before that is there at once; nothing is added to it any more.
            rest = self._loop.create_task(self._transport.read(PIECE))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if rest.done():
                self._received(rest.result())
            rest.cancel()
            descriptor = transport.get_extra_info("socket").fileno()
            self._shared = SharedSocket(
                descriptor, self._loop, self._received, self._fail_from_anywhere
            )
            try:
                await asyncio.shield(self.lost)
            finally:
                self._unshare()  # it may have been lost before this had begun
            return
        try:
            while data := await self._transport.read(PIECE):
                self._received(data)
            self.lose(ConnectionResetError("the server has closed the connection"))
        except Exception as error:
            self.lose(error)

    def _received(self, data: bytes) -> None:
        with self.outstanding.lock:
            self.outstanding.heard = monotonic()
            self._parser.feed(data)
        self._on_heard()

    def _unsubscribe(self, sid: bytes) -> None:
        self._soon(self._write, b"UNSUB %b\r\n" % sid)

    def _take_line(self, line: bytes) -> None:
        # Whoever reads, these are the loop's: nats-py's part, and its tasks.
        self._soon(self._obey, line)

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop's thread, from any."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and told everyone
            self._loop.call_soon_threadsafe(function, *arguments)

    def _obey(self, line: bytes) -> None:
        if line == b"PING":
            self._write(b"PONG\r\n")
        elif line == b"PONG":
            self._do(self._process_pong())
        elif line.startswith(b"-ERR"):
            self._do(self._process_err(line[4:].strip().decode().lower()))
        elif line.startswith(b"INFO "):
            self._do(self._process_info(json.loads(line[5:])))

    def _do(self, chore: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(chore)
        self._chores.add(task)  # the loop itself would let it be collected
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("nats-py could not handle a line of the server: %s", explain(error))

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self._pongs.append(future or self._loop.create_future())
        self._write(b"PING\r\n")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self._needs_tls and initial_connection:
            # nats-py leaves it to the server, and would send the credentials in the clear.
            if not (info.get("tls_required") or info.get("tls_available")):
                raise NotSent("the server offers no TLS, which the settings ask for")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    # Giving up -------------------------------------------------------------------------------

    def gone(self) -> int:
        """How many of the bytes that were written have left."""
        return self._written - self._buffered()

    def silent_since(self, seconds: float) -> bool:
        """Whether nothing at all has come from the server for so many seconds."""
        return monotonic() - self.outstanding.heard >= seconds

    def lose(self, error: Exception) -> None:
        """Count the connection as lost: abort it, and tell everyone who waits on it."""
        if self.lost.done():
            return
        self.lost.set_result(without_frames(error))
        self._sweep.stop()
        self.abort()
        for waiter in self.outstanding.drain():
            failure = OutcomeUnknown(f"The connection was lost before the answer: {explain(error)}")
            failure.__cause__ = error
            waiter.fail(failure)

    def _fail_from_anywhere(self, error: BaseException) -> None:
        """lose(), for any thread."""
        if not isinstance(error, Exception) or is_interruption(error):
            error = ConnectionAbortedError(f"a caller was interrupted by {type(error).__name__}")
        self._soon(self.lose, error)

    async def finish(self, *, silently: bool) -> None:
        """Close, once the server has what was sent; silently: tell nobody who waits."""
        with self.outstanding.lock:
            self._closing = True
        in_flight = bool(self.outstanding)
        if silently:
            self.outstanding.drain()
        if in_flight:
            # Closed with answers unread, the socket would be reset, and with it what it sent.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.flush(), _LAST_FLUSH)
        await self.close()

    def abort(self) -> None:
        # Not close(): with a peer that does not read, closing would wait for the buffer to drain.
        self._unshare()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def _unshare(self) -> None:
        if self._shared is not None:
            with self.outstanding.lock:  # nobody is writing to a number that is another's then
                self._shared.close()

    def descriptors(self) -> list[int]:
        """The file descriptors, for a forked child to let go of."""
        writer = getattr(self._transport, "_io_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        own = [] if sock is None else [int(sock.fileno())]
        return own if self._shared is None else [*own, *self._shared.descriptors]

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(e)

    async def _closed(self) -> None:
        self._ended()

    def _ended(self, _: object = None) -> None:
        self.lose(self.last_error or ConnectionError("the connection was closed"))

    async def _error(self, error: Exception) -> None:
        if not self._inbox:
            # Raised while connecting, this is what ends nats-py's own retries.
            raise error
        message = str(error).lower()
        if "permissions violation" not in message or self._inbox.decode().lower() in message:
            return  # the latter is open()'s to tell
        logger.warning("The NATS server refuses: %s", error)
        self.outstanding.refuse(message)
