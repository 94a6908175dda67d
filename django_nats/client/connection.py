"""One TCP connection: many callers' requests multiplexed over a nats-py client.

nats-py connects, authenticates, speaks TLS, pings and parses; this class takes the replies from
it before it builds its own messages and wakes its own tasks, most of what a request would cost.
A connection lives once: when it is lost, every waiter is told and the session makes a new one.

It leans on these private names of nats-py, held in place by tests/client/test_nats_contract.py:
``Client._process_msg``, ``_process_info``, ``_process_pong``, ``_process_op_err``,
``_reading_task``, ``_pings_outstanding``, ``_transport`` and ``TcpTransport._io_writer``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from nats.aio.client import Client

from ..exceptions import NatsError, NotSent, OutcomeUnknown, PermissionDenied, ValueTooLarge
from . import wire
from .faults import explain, without_frames
from .steps import Answer, Lane, Request
from .waiter import Waiter

logger = logging.getLogger("django_nats")

PING_INTERVAL = 1.5
"""Seconds; three unanswered in a row make the connection count as lost."""
HIGH_WATER = 8 * 1024 * 1024
"""Bytes in the transport's buffer beyond which further requests wait outside of it."""

_TICK = 0.02
_LATE = 0.2
_LAST_FLUSH = 0.5
_KERNEL_ROOM = 256 * 1024
_LEAST_FLOW = 256 * 1024  # bytes; what leaves more slowly than this in a timeout counts as stuck
_INBOX_SID = 1
_FIRST_TOKEN = 2  # tokens double as subscription ids, and 1 is taken


class Connection(Client):
    """A connection and those who wait for replies on it. Everything runs on the loop's thread."""

    _transport: Any  # nats-py's: None only until open() returns, as is the next
    _reading_task: Any

    def __init__(self, on_timeout: Callable[[Lane], None], on_heard: Callable[[], None]) -> None:
        super().__init__()
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Done, with the driver's error, when the connection is gone for good."""
        self.heard = self.flowed = monotonic()
        self._written = self._gone = 0
        self._on_timeout = on_timeout
        self._on_heard = on_heard
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Waiter] = {}
        self._next_token = _FIRST_TOKEN
        self._sweeping = False
        self._sweep_due = 0.0
        self._ping: asyncio.Task[None] | None = None
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
            self._keep_waiting_bytes_here()
            self._inbox = f"{inbox_prefix}.{secrets.token_hex(11)}.".encode()
            self._transport.write(b"SUB %b* %d\r\n" % (self._inbox, _INBOX_SID))
            self._reading_task.add_done_callback(self._ended)
            await self.flush()
            if self.last_error is not None:  # no answer would ever come
                raise NotSent(f"{self.last_error} (INBOX_PREFIX is where answers come in)")
        except BaseException:
            self.abort()
            raise

    def _keep_waiting_bytes_here(self) -> None:
        # In the system's buffers, which grow to megabytes, what is still to be sent would look
        # like what the server is taking its time to answer.
        sock = self._transport._io_writer.get_extra_info("socket")
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, _KERNEL_ROOM)

    # Sending ---------------------------------------------------------------------------------

    def send(self, queue: deque[Waiter]) -> bool:
        """Write what is queued, in one write. False when the peer is slow and some had to stay."""
        if self.lost.done():
            return True  # the session is about to know, and refuses what is queued
        frames: list[bytes] = []
        room = HIGH_WATER - self._buffered()
        while queue and room > 0:
            waiter = queue.popleft()
            if not waiter.abandoned:
                size = self._enlist(waiter, frames)
                room -= size
                self._written += size
                waiter.end = self._written
        if frames:
            self._write(b"".join(frames))
        if not self._sweeping:
            self._arm()
        return room > 0 or not queue

    def _buffered(self) -> int:
        """The bytes that have been written and not left yet; notes when they go on leaving."""
        buffered: int = self._transport._io_writer.transport.get_write_buffer_size()
        gone = self._written - buffered
        if gone - self._gone >= _LEAST_FLOW:
            self._gone, self.flowed = gone, monotonic()
            # Pings queue up behind the rest: that they are late does not make the peer stale.
            self._pings_outstanding = 0
        return buffered

    def _write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except Exception as error:
            self.lose(error)  # uvloop's transports raise once they are closed

    def _enlist(self, waiter: Waiter, frames: list[bytes]) -> int:
        """Register a waiter, or fail it alone: those beside it must not wait for ever."""
        before = len(frames)
        try:
            return self._register(waiter, frames)
        except Exception as error:
            del frames[before:]
            for index in range(len(waiter.requests)):
                self._waiting.pop(waiter.token + index, None)
            failure = NotSent(f"The request cannot be sent: {explain(error)}")
            failure.__cause__ = without_frames(error)
            waiter.fail(failure)
            return 0

    def _register(self, waiter: Waiter, frames: list[bytes]) -> int:
        """Give each request a token and its frame; the number of bytes they come to."""
        token = waiter.token = self._next_token
        self._next_token += len(waiter.requests)
        waiter.sent = monotonic()
        waiter.deadline = waiter.sent + waiter.timeout
        waiter.connection = self
        size = 0
        for index, request in enumerate(waiter.requests):
            error = self._unfit(request)
            if error is not None:
                waiter.answer(index, error)
                continue
            reply = b"%b%d" % (self._inbox, token + index)
            if request.inbox:
                reply += b".pull"
                frames.append(b"SUB %b %d\r\n" % (reply, token + index))
            frame = wire.publish_frame(request.subject, reply, request.header, request.payload)
            frames.append(frame)
            size += len(frame)
            self._waiting[token + index] = waiter
        return size

    def _unfit(self, request: Request) -> NatsError | None:
        # The server drops a client for good that sends a larger frame or a longer control line.
        size = len(request.header) + len(request.payload)
        if size > self.max_payload:
            return ValueTooLarge(
                f"The message for {request.subject.decode()} has {size} bytes with its headers; "
                f"the server takes at most {self.max_payload} (max_payload)"
            )
        if len(request.subject) + len(self._inbox) + 64 > wire.MAX_CONTROL_LINE:
            return ValueTooLarge(f"The subject has {len(request.subject)} bytes, which is too long")
        return None

    # Receiving -------------------------------------------------------------------------------

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        try:
            self._take(sid, wire.Reply(headers or b"", data, reply, subject))
        except Exception:
            # An exception here would end nats-py's reader, and leave the connection deaf.
            logger.exception("django-nats could not handle a reply")

    def _take(self, sid: int, reply: wire.Reply) -> None:
        self._note_heard()
        token = int(reply.subject[len(self._inbox) :]) if sid == _INBOX_SID else sid
        waiter = self._waiting.get(token)
        if waiter is None:
            return  # its caller has given up
        index = token - waiter.token
        request = waiter.requests[index]
        answer: Answer = reply
        waiter.deadline = self.heard + waiter.timeout
        if request.gather:
            gathered = waiter.gather(index, reply, request.gather)
            if gathered is None:
                return
            answer = gathered
            if request.inbox:
                self._write(b"UNSUB %d\r\n" % token)
        del self._waiting[token]
        waiter.answer(index, answer)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self._needs_tls and initial_connection:
            # nats-py leaves it to the server, and would send the credentials in the clear.
            if not (info.get("tls_required") or info.get("tls_available")):
                raise NotSent("the server offers no TLS, which the settings ask for")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_pong(self) -> None:
        self._note_heard()
        await super()._process_pong()

    def _note_heard(self) -> None:
        self.heard = monotonic()
        self._on_heard()

    # Giving up -------------------------------------------------------------------------------

    def _sweep(self, patient: bool = True) -> None:
        """Fail what has waited too long; ask early whether the server is there at all."""
        now = monotonic()
        if patient and now - self._sweep_due > _LATE:
            # The loop itself was held up: the answers may be in the socket, still unread. Only
            # once, though: on a machine that always holds it up, calls must end all the same.
            self._arm(patient=False)
            return
        gone = self._written - self._buffered()
        for waiter in set(self._waiting.values()):
            if waiter.end > gone:
                # Behind others' bytes on a slow link: the server cannot have been asked yet.
                waiter.deadline = max(waiter.deadline, self.flowed + waiter.timeout)
            if now >= waiter.deadline:
                self._time_out(waiter)
            elif now - max(waiter.sent, self.heard) > waiter.timeout / 4:
                self._ask_for_sign_of_life()
        self._arm()

    def _arm(self, patient: bool = True) -> None:
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._sweep_due = monotonic() + _TICK
            self._loop.call_later(_TICK, self._sweep, patient)

    def _time_out(self, waiter: Waiter) -> None:
        lane = waiter.first_open.lane
        self._ask_for_sign_of_life()
        self.forget(waiter)
        # First the circuit, then the caller: its next request must find the circuit open.
        self._on_timeout(lane)
        waiter.fail(OutcomeUnknown(f"No answer within {waiter.timeout:g} s ({lane.name})"))

    def _ask_for_sign_of_life(self) -> None:
        if self._ping is None or self._ping.done():
            self._ping = self._loop.create_task(self._flush_quietly())

    async def _flush_quietly(self) -> None:
        try:
            await self.flush(timeout=60)
        except Exception:
            return

    def silent_since(self, seconds: float) -> bool:
        """Whether nothing at all has come from the server for so many seconds."""
        return monotonic() - self.heard >= seconds

    def forget(self, waiter: Waiter) -> None:
        """Wait no longer for a waiter's replies."""
        for index, request in enumerate(waiter.requests):
            forgotten = self._waiting.pop(waiter.token + index, None)
            if forgotten is not None and request.inbox and not self.lost.done():
                self._write(b"UNSUB %d\r\n" % (waiter.token + index))

    def lose(self, error: Exception) -> None:
        """Count the connection as lost: abort it, and tell everyone who waits on it."""
        if self.lost.done():
            return
        self.lost.set_result(without_frames(error))
        if self._ping is not None:
            self._ping.cancel()
        self.abort()
        waiters = set(self._waiting.values())
        self._waiting.clear()
        for waiter in waiters:
            failure = OutcomeUnknown(f"The connection was lost before the answer: {explain(error)}")
            failure.__cause__ = error
            waiter.fail(failure)

    async def finish(self, *, silently: bool) -> None:
        """Close, once the server has what was sent; silently: tell nobody who waits."""
        in_flight = bool(self._waiting)
        if silently:
            self._waiting.clear()
        if in_flight:
            # Closed with answers unread, the socket would be reset, and with it what it sent.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.flush(), _LAST_FLUSH)
        await self.close()

    def abort(self) -> None:
        # Not close(): with a peer that does not read, closing would wait for the buffer to drain.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def descriptor(self) -> int | None:
        """The socket's file descriptor, for a forked child to let go of."""
        writer = getattr(self._transport, "_io_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        return None if sock is None else int(sock.fileno())

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
        for token, waiter in list(self._waiting.items()):
            index = token - waiter.token
            subject = waiter.requests[index].subject.decode()
            if f'"{subject.lower()}"' in message:
                del self._waiting[token]
                waiter.answer(index, PermissionDenied(f"No permission to publish to {subject}"))
