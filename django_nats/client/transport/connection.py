"""One TCP connection: the requests of many callers, multiplexed over a nats-py client.

nats-py authenticates, speaks TLS and sends pings. Once connected, this class reads what
arrives, so that nats-py does not build its own messages and wake its own tasks, which would be
most of the cost of a request. A connection is used once: when it is lost, all its requests fail,
and the session opens a new one.

It depends on private names of nats-py, which nats_py.py lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ...exceptions import NatsError, NotSent, OutcomeUnknown, UnexpectedReply
from ...realtime import monotonic
from ..protocol import documents
from ..protocol.steps import Lane
from ..protocol.wire import Reply
from .driver_errors import Interrupted, explain, without_frames
from .error_lines import ErrorLines, inbox_refused
from .greeting import OpenTransport
from .hearing import Hearing
from .incoming import Incoming
from .nats_client import NatsClient
from .outgoing import Outgoing
from .pending import INBOX_SID, Outstanding
from .shared_socket import (
    AVAILABLE,
    PIECE_BYTES,
    SharedSocket,
    is_interruption,
    limit_system_buffer,
)
from .timeouts import Sweep
from .waiter import Waiter

logger = logging.getLogger("django_nats")

PING_INTERVAL_S = 1.5
"""After three pings in a row without an answer or other bytes, the connection counts as lost."""
_MOST_PINGS = 10  # that are not answered while other bytes arrive
HIGH_WATER_BYTES = 8 * 1024 * 1024
"""With more than this in the transport's buffer, further requests wait in the session's queue."""
_LAST_FLUSH_S = 0.5
"""How long closing waits until the server has received what was sent."""


class Connection(NatsClient):
    """A connection, and the requests that wait for replies on it.

    All its methods run on the loop's thread, unless they say otherwise. A caller that is alone on
    the connection sends and reads on its own thread. What it shares with the loop, which is the
    way to the socket and the outstanding requests, is protected by the lock of ``outstanding``.
    """

    # nats-py's. It is None before open() returns, and never after.
    _reading_task: Any

    def __init__(
        self, on_timeout: Callable[[Lane], str | None], on_received: Callable[[], None]
    ) -> None:
        """Make a connection that is not open.

        ``on_timeout`` gets the lane of a request that has timed out, and returns what its caller
        should log. ``on_received`` is called when bytes arrive, on any thread.
        """
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        """Resolved with the driver's error when the connection is lost."""
        self.outstanding = Outstanding(self._unsubscribe)
        self.outgoing = Outgoing(self)
        self._incoming = Incoming(self.outstanding, self._take_line, on_received)
        self._incoming.limit(self.max_payload)
        self.hearing = Hearing(self)
        self._sweep = Sweep(self, on_timeout)
        self._shared: SharedSocket | None = None
        """The socket that callers may read; None before open(), and where only the loop reads."""
        self._inbox = b""
        """Prefix of the subjects for replies. Empty before nats-py has connected."""
        self._closing = False
        self._server_version = ""
        self._error_lines = ErrorLines(self.outstanding, self.lose)
        self._line_tasks: set[asyncio.Task[None]] = set()

    async def open(self, server: str, transport: OpenTransport, options: dict[str, Any]) -> None:
        """Log in to a server that is connected to. Raise what nats-py or the socket raised."""
        try:
            await self.log_in(
                server,
                transport,
                pending_size=0,
                max_outstanding_pings=2,
                error_cb=self._error,
                closed_cb=self._closed,
                ping_interval=PING_INTERVAL_S,
                **options,
            )
            self.outgoing.attach(self._transport)
            transport.require_open()
            limit_system_buffer(transport.socket)
            self._inbox = f"{options['inbox_prefix']}.{secrets.token_hex(11)}.".encode()
            self.outstanding.open(self._inbox)
            self._transport.write(b"SUB %b* %b\r\n" % (self._inbox, INBOX_SID))
            self._reading_task.add_done_callback(self._ended)
            await self.ping()
            if refusal := self.last_error or self._error_lines.inbox_refusal:
                raise inbox_refused(refusal)  # no answer could ever arrive
            if self.lost.done():
                raise self.lost.result()
            self._error_lines.opened = True
        except BaseException:
            self.abort()
            raise

    # Sending ---------------------------------------------------------------------------------

    def send(self, queue: deque[Waiter]) -> bool:
        """Send the queued requests in one write.

        Return False if some had to stay in the queue, as the server reads too slowly.
        """
        if self.lost.done():
            return True  # the session is about to notice, and fails what is queued
        with self.outstanding.lock:
            frames: list[bytes] = []
            room = HIGH_WATER_BYTES - self.outgoing.buffered()
            while queue and room > 0:
                waiter = queue.popleft()
                if not waiter.abandoned:
                    room -= self._enlist(waiter, frames)
            if frames:
                self.outgoing.write(b"".join(frames))
        self._sweep.begin()
        return room > 0 or not queue

    def send_directly(self, waiter: Waiter) -> bool:
        """Send requests on the caller's own thread. Return False if they must be queued.

        This is done only while no other request is waiting: the loop sends the requests of many
        callers in one write. A caller that blocks also reads here, for a moment. Any thread may
        call this.
        """
        shared = self._shared
        if shared is None or self.outstanding:
            return False
        if waiter.blocking:
            return self._send_and_read(waiter, shared)
        if self._send_if_alone(waiter, shared):
            self._start_timeouts()
            return True
        return False

    def _holds_lock(self) -> bool:
        """Return True if this thread has the lock: a signal's handler has interrupted its owner."""
        return self.outstanding.lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def make_way(self) -> None:
        """Let the loop read and write before a caller waits for it. Any thread may call this.

        Raise NotSent in a signal's handler if the call that it has interrupted holds what the
        loop needs.
        """
        if self._holds_lock() or (self._shared is not None and not self._shared.give_way()):
            raise NotSent("A signal's handler has interrupted another call, which must end first")

    def _send_and_read(self, waiter: Waiter, shared: SharedSocket) -> bool:
        if self._holds_lock():
            return False  # the loop may wait for this lock, and the caller for the loop
        waiter.shared, waiter.thread = shared, get_ident()
        try:
            if not shared.begin_reading(waiter) or not self._send_if_alone(waiter, shared):
                return False
            shared.read_until(waiter, waiter.is_answered)
        finally:
            shared.end_reading(waiter)
        if waiter.unanswered:
            self._start_timeouts()
        return True

    def _send_if_alone(self, waiter: Waiter, shared: SharedSocket) -> bool:
        with self.outstanding.lock:
            # These bytes must not overtake, or split, what is still in the transport's buffer.
            if not self.outgoing.is_clear() or self.outstanding or self._closing:
                return False
            if self.lost.done():
                return False
            frames: list[bytes] = []
            self._enlist(waiter, frames)
            self.outgoing.send(b"".join(frames), shared)
            return True

    def _enlist(self, waiter: Waiter, frames: list[bytes]) -> int:
        waiter.connection = self
        size = self.outstanding.enlist(waiter, frames, self.max_payload)
        waiter.end_offset = self.outgoing.reserve(size)
        return size

    def listen(
        self, listener: Callable[[Reply], None], on_refusal: Callable[[NatsError], object]
    ) -> tuple[bytes, str]:
        """Subscribe to a new subject. Return the subscription's id and the subject.

        ``listener`` gets every message on it, on any thread, under the lock of ``outstanding``.
        ``on_refusal`` gets the error if the server refuses the subscription.
        """
        sid, subject = self.outstanding.subscriptions.listen(listener, on_refusal)
        self.outgoing.write(b"SUB %b %b\r\n" % (subject, sid))
        return sid, subject.decode()

    def unlisten(self, sid: bytes) -> None:
        """End a subscription that listen() has begun."""
        self.outstanding.subscriptions.unlisten(sid)
        self._unsubscribe(sid)

    def post(self, subject: bytes) -> None:
        """Send an empty message, from any thread. Its answer is dropped."""
        self._soon(self.outgoing.write, b"PUB %b %b0 0\r\n\r\n" % (subject, self._inbox))

    def send_to_inbox(self) -> None:
        """Publish an empty message to the connection's own inbox."""
        self.outgoing.write(b"PUB %b0 0\r\n\r\n" % self._inbox)

    async def ping(self) -> None:
        """Wait until all that the server had sent before this call has been read."""
        answered = self._loop.create_future()
        await self._send_ping(answered)
        await asyncio.wait({answered, self.lost}, return_when=asyncio.FIRST_COMPLETED)

    def _start_timeouts(self) -> None:
        """Start the timeouts, from any thread."""
        if not self._sweep.armed:
            self._soon(self._sweep.begin)

    def note_flow(self) -> None:
        """Do not count the unanswered pings, as many bytes have left.

        The pings were queued behind these bytes. That their answers are late does not mean that
        the server is gone.
        """
        self._pings_outstanding = 0

    # Receiving -------------------------------------------------------------------------------

    async def _read_loop(self) -> None:
        """Read until the connection is lost. nats-py runs this as its reader, once connected."""
        try:
            if AVAILABLE and not self._transport.has_tls:
                await self._read_in_turn()
                return
            while data := await self._transport.read(PIECE_BYTES):
                self._incoming.receive([data])
            self.lose(ConnectionResetError("the server has closed the connection"))
        except Exception as error:
            self.lose(error)

    async def _read_in_turn(self) -> None:
        """Read a socket that callers read as well."""
        self._transport._io_writer.transport.pause_reading()
        while self._transport.unread:  # it arrived before the pause, and no more is added to it
            self._incoming.receive([await self._transport.read(PIECE_BYTES)])
        self._shared = SharedSocket(
            self._transport.socket.fileno(),
            self._loop,
            self._incoming.receive,
            self.fail_from_anywhere,
            self._incoming.can_continue,
        )
        try:
            await asyncio.shield(self.lost)
        finally:
            self._unshare()  # the connection may have been lost before _shared was set

    def _unsubscribe(self, sid: bytes) -> None:
        self._soon(self.outgoing.write, b"UNSUB %b\r\n" % sid)

    def _take_line(self, line: bytes) -> None:
        # On the loop's thread, whichever thread reads: these lines are for nats-py and its tasks.
        self._soon(self._obey, line)

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop's thread, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended and failed all requests
            self._loop.call_soon_threadsafe(function, *arguments)

    def _obey(self, line: bytes) -> None:
        if line == b"PING":
            self.outgoing.write(b"PONG\r\n")
        elif line == b"PONG":
            self._run_line_task(self._process_pong())
        elif line.startswith(b"-ERR"):
            text = line[4:].strip().decode("utf-8", "replace").lower()
            if not self._error_lines.takes(text):
                self._run_line_task(self._process_err(text))
        elif line.startswith(b"INFO "):
            try:
                info = documents.read(line[5:], "the server's INFO", documents.SERVER_CHANGED)
            except UnexpectedReply as error:
                self.lose(error)
            else:
                self._run_line_task(self._process_info(info))

    def _run_line_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._line_tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._line_task_done)

    def _line_task_done(self, task: asyncio.Task[None]) -> None:
        self._line_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("nats-py could not handle a line of the server: %s", explain(error))

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        arriving = future is None and not self.silent_since(PING_INTERVAL_S)
        if arriving and len(self._pongs) < _MOST_PINGS:  # the answers may not have been read yet
            self._pings_outstanding = 1
        self._pongs.append(future or self._loop.create_future())
        self.outgoing.write(b"PING\r\n")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        self._max_payload = info.get("max_payload", self._max_payload)
        self._server_version = info.get("version", self._server_version)
        self._incoming.limit(self.max_payload)

    @property
    def server(self) -> str:
        """Return the name and the version of the server."""
        return f"nats-server {self._server_version}"

    # Giving up -------------------------------------------------------------------------------

    def silent_since(self, seconds: float) -> bool:
        """Return True if no bytes have arrived for a number of seconds."""
        return monotonic() - self.outstanding.received_at >= seconds

    def lose(self, error: Exception) -> None:
        """Abort the connection, and fail its requests with OutcomeUnknown."""
        if self.lost.done():
            return
        self.lost.set_result(without_frames(error))
        self._sweep.stop()
        self.abort()
        for waiter in self.outstanding.drain():
            failure = OutcomeUnknown(f"The connection was lost before the answer: {explain(error)}")
            failure.__cause__ = error
            waiter.fail(failure)

    def fail_from_anywhere(self, error: BaseException) -> None:
        """Call lose() on the loop's thread, from any thread."""
        if not isinstance(error, Exception) or is_interruption(error):
            error = Interrupted(f"a caller was interrupted by {type(error).__name__}")
        self._soon(self.lose, error)

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting for a waiter's replies."""
        self.outstanding.forget(waiter)

    async def finish(self, *, silently: bool) -> None:
        """Close once the server has received what was sent, but wait for a short time only.

        ``silently``: do not fail the requests that are waiting.
        """
        with self.outstanding.lock:
            self._closing = True
        in_flight = bool(self.outstanding)
        if silently:
            self.outstanding.drain()
        if in_flight:
            # If the socket were closed with answers unread, it would be reset, and the server
            # might lose what was sent.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.flush(), _LAST_FLUSH_S)
        await self.close()

    def abort(self) -> None:
        """Close the socket at once."""
        self._unshare()
        super().abort()

    def _unshare(self) -> None:
        if self._shared is not None:
            with self.outstanding.lock:  # so that no caller writes to a descriptor that is reused
                self._shared.close()

    def descriptors(self) -> list[int]:
        """Return the file descriptors, which a forked child closes."""
        own = super().descriptors()
        return own if self._shared is None else [*own, *self._shared.descriptors]

    async def _process_op_err(self, e: Exception) -> None:
        self.lose(e)

    async def _closed(self) -> None:
        self._ended()

    def _ended(self, _: object = None) -> None:
        self.lose(self.last_error or ConnectionError("the connection was closed"))

    async def _error(self, error: Exception) -> None:
        if not self._inbox:
            # Raising while it connects ends nats-py's own retries.
            raise error
        message, inbox = str(error).lower(), self._inbox.decode()
        if f'"{inbox.lower()}0"' in message:
            self.hearing.permitted = False
        elif "permissions violation" in message:
            self._error_lines.not_permitted(error, inbox)
