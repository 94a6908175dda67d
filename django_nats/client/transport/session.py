"""The process's lasting access to one set of servers, through connections that come and go.

A session is shared by every thread, every event loop and every alias with the same configuration.
It keeps one connection open. It also is a circuit: while the server is known to be away,
operations fail at once, and do not each wait for their own timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ...exceptions import DriverMismatch, NatsError, NotSent
from ...realtime import monotonic
from ..protocol.steps import Lane, Request
from . import forks, login
from .asking import Asking
from .backoff import Backoff
from .closing import close_within
from .config import ConnectionConfig
from .connector import Connector
from .driver_errors import Interrupted, explain, without_frames
from .lane_circuits import LaneCircuits
from .loop import LoopThread
from .waiter import Waiter

if TYPE_CHECKING:
    from .connection import Connection

logger = logging.getLogger("django_nats")

_ROOM_PAUSE_S = 0.002
"""How soon queued requests are tried again while the server reads too slowly."""
_SILENCE_S = 0.5
"""How long a server must be silent before all callers fail at once. Calls with a short timeout fail
earlier, and alone: others may have time to wait."""
_CLOSE_S = 1.0
"""How long a lost connection may take to close before the next one is opened."""
_DEFAULT_MAX_PAYLOAD_BYTES = 1024 * 1024
"""The server's default, which is assumed while there is no connection."""


class Session:
    """One connection at a time to one set of servers, the queue for it, and the circuit.

    The first group of methods is for any thread, the others are for the loop's thread.
    """

    def __init__(self, config: ConnectionConfig, thread: LoopThread) -> None:
        """Make a session that is not connected. It connects when the first request is sent."""
        self.config = config
        self.entries = {config.entry: config.login}
        """The entries of settings that use the session, and what of each holds credentials."""
        self._thread = thread
        self._queue: deque[Waiter] = deque()
        """Requests for the loop to send."""
        self._lane_circuits = LaneCircuits(self)
        self._reset()

    def _reset(self) -> None:
        self._lane_circuits.reset()
        self._flush_scheduled = False
        """Whether the loop is about to send what is queued."""
        self._flush_scheduler = 0
        """Identity of the thread that has scheduled it.

        A signal's handler on the same thread may have interrupted that before it was done, so it
        schedules it once more.
        """
        self._connection: Connection | None = None
        self._connector = Connector(self.config, Asking(self.config), self._new_connection)
        self._supervisor: asyncio.Task[None] | None = None
        """The task that keeps the connection open."""
        self._fault: str | None = None
        """Why every operation fails, while the circuit is open."""
        self._cause: Exception | None = None
        """The driver's error behind it."""
        self._silent = False
        """Whether the circuit is open though there is a connection, as the server is silent."""
        self._ending = False
        self.epoch = getattr(self, "epoch", 0) + 1
        """Changes with every connection. What is known of the server must then be read again."""

    def __repr__(self) -> str:
        """Show the servers, without credentials."""
        return f"<Session {self.config.where}{'' if self.connected else ' (not connected)'}>"

    # For every thread ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Return True if there is a connection, and operations do not fail at once."""
        return self._connection is not None and self._fault is None

    @property
    def connection(self) -> Connection | None:
        """Return the current connection, for use on the loop's thread."""
        return self._connection

    @property
    def epoch_of_requests(self) -> int:
        """Return the epoch of the connection on which a request is sent that is made now."""
        return self.epoch if self._connection is not None else self.epoch + 1

    @property
    def connect_timeout(self) -> float:
        """Return the seconds for which a caller waits for the first connection."""
        return self.config.connect_timeout

    @property
    def max_payload(self) -> int:
        """Return the size of the largest message that the server accepts, headers included."""
        connection = self._connection
        return connection.max_payload if connection is not None else _DEFAULT_MAX_PAYLOAD_BYTES

    @property
    def server(self) -> str:
        """Return the name and version of the connected server, or an empty string."""
        connection = self._connection
        return "" if connection is None else connection.server

    @property
    def waiters(self) -> int:
        """Return how many requests wait for an answer, or to be sent."""
        connection = self._connection
        return len(self._queue) + (len(connection.outstanding) if connection is not None else 0)

    def submit(self, waiter: Waiter) -> None:
        """Send a waiter's requests. Raise NotSent at once while the circuit is open.

        Raise DriverMismatch if the installed nats-py cannot be used.

        If the caller blocks, this may return only when the answers are there, if that is faster.
        """
        if (fault := self._fault) is not None:  # another thread may end it meanwhile
            raise self._refusal(fault)
        fault = waiter.requests[0].lane.fault
        if fault is not None:
            raise NotSent(fault)
        connection = self._connection
        if connection is not None:
            if not self._queue and connection.send_directly(waiter):
                return
            connection.make_way()
        self._queue.append(waiter)
        if not self._flush_scheduled or self._flush_scheduler == get_ident():
            try:
                self._flush_scheduled, self._flush_scheduler = True, get_ident()
                self._thread.call(self._flush)
            except NatsError as error:
                self._flush_scheduled = False
                self._refuse_queue(str(error))
                raise
            except BaseException:
                # A signal's handler raised. Other callers, whose requests are queued, rely on it.
                self._thread.call(self._flush)
                raise

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop's thread, which is started if needed.

        Raise NotSent if there is no such thread, and none can be started.
        """
        self._thread.call(function)

    def call_if_running(self, function: Callable[[], object]) -> bool:
        """Run a function on the loop's thread, if it is running. Return False if it is not."""
        if self._thread.alive:
            with contextlib.suppress(NotSent):
                self._thread.call(function)
                return True
        return False

    def post(self, *requests: Request) -> None:
        """Send requests, each after the answer to the one before, without waiting.

        A request that is due while the circuit is open is dropped, and so are those after it.
        """
        first, *others = requests

        def post_others() -> None:
            if others:
                self.call_if_running(partial(self.post, *others))

        with contextlib.suppress(NotSent, DriverMismatch):
            self.submit(Waiter([first], post_others))

    def suspend(self, lane: Lane, fault: str) -> None:
        """Open the circuit of a lane until its probe is answered. Log ``fault``.

        Do nothing if the lane has no probe, or while the session's own circuit is open or about
        to open: a missing answer then says nothing about the lane.
        """
        connection = self._connection
        if self._fault is not None or connection is None or connection.lost.done():
            return
        if lane.fault is None and lane.probe is not None:
            self._lane_circuits.open(lane, fault)
            if self.call_if_running(partial(self._lane_circuits.probe, lane)):
                logger.warning("%s", fault)
            else:
                lane.fault = None

    def abandon(self, waiter: Waiter) -> None:
        """Forget a waiter whose caller has stopped waiting, wherever it is."""
        waiter.abandoned = True
        waiter.thread = 0  # from now on, only the loop takes away the right to read

        def forget() -> None:
            if waiter.shared is not None:
                waiter.shared.end_reading(waiter)
            if waiter.connection is not None:
                waiter.connection.forget(waiter)

        self.call_if_running(forget)

    # Connecting ------------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._thread.is_current():
            # This loop was given up, as it did not end in time, and now runs this after all.
            with contextlib.suppress(NotSent):
                self._thread.call(self._flush)
            return
        self._flush_scheduled = False
        if self._supervisor is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())
        if (fault := self._fault) is not None:  # another thread may end it meanwhile
            self._refuse_queue(fault)
        elif self._connection is not None and not self._connection.send(self._queue):
            self._wait_for_room(self._connection)

    def _wait_for_room(self, connection: Connection) -> None:
        """Try to send the queue again soon, as the server reads too slowly.

        Fail it if no bytes have left for as long as the timeout of the first request.
        """
        while self._queue[0].abandoned:
            self._queue.popleft()
            if not self._queue:
                return
        first, now = self._queue[0], monotonic()
        first.deadline = first.deadline or now + first.timeout
        first.deadline = max(first.deadline, connection.outgoing.flowed_at + first.timeout)
        if now >= first.deadline:
            self._refuse_queue(f"NATS at {self.config.where} accepts no more bytes at the moment")
        else:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_later(_ROOM_PAUSE_S, self._flush)

    def _new_connection(self) -> Connection:
        # nats-py takes about 100 ms to import. It is imported here, at first use, so that not
        # every manage.py command pays for it.
        from .connection import Connection

        return Connection(self._timed_out, self._on_received)

    async def _supervise(self) -> None:
        """Keep a connection open until the task is cancelled."""
        backoff = Backoff(self.config.max_reconnect_wait, self.config.max_refused_wait)
        this = asyncio.current_task()
        while True:
            failures: list[Exception] = []
            try:
                # Before the first failure, callers wait for a connection.
                connection = await self._connector.connect(
                    failures, callers_wait=self._fault is None
                )
            except DriverMismatch as error:
                self._go_down(str(error), without_frames(error))
                return  # only a new process can have another nats-py
            except Exception as error:
                # When it is cancelled, nats-py may raise another error.
                if self._ending or self._supervisor is not this:
                    return
                self._go_down(self._reason(error), without_frames(error))
                await asyncio.sleep(backoff.failed(failures or [error]))
                continue
            if self._ending or self._supervisor is not this:
                connection.abort()  # too late: the next supervisor has its own connection
                return
            opened, number = monotonic(), connection.client_id or 0
            self._come_up(connection)
            loss = await asyncio.shield(connection.lost)
            if self._supervisor is not this:
                return
            self._connection = None
            self._go_down(self._reason(loss), loss)
            self._connector.learn_servers(connection)
            await close_within(_CLOSE_S, connection)
            if not isinstance(loss, Interrupted):  # that was not the server's fault
                lived, servers = monotonic() - opened, self._connector.server_count
                await asyncio.sleep(backoff.lost(lived, number, servers))

    def _come_up(self, connection: Connection) -> None:
        self._connection = connection
        self.epoch += 1
        self._silent = False
        if self._fault is not None:
            logger.warning("Reconnected to NATS at %s", self.config.where)
        self._fault = self._cause = None
        self._flush()

    def _reason(self, error: Exception) -> str:
        return login.with_remedy(explain(error), dict(self.entries))

    def _go_down(self, reason: str, cause: Exception) -> None:
        was_up = self._fault is None
        self._fault = fault = login.no_connection(self.config.where, reason)
        self._cause = cause
        self._silent = False
        self._refuse_queue(fault)
        # Last, as a log handler may wait for a caller whose request has just failed.
        if was_up:
            logger.warning("%s", fault)

    def _refuse_queue(self, fault: str) -> None:
        # As many as there are now. What other threads add meanwhile, they have flushed later.
        for _ in range(len(self._queue)):
            try:
                waiter = self._queue.popleft()
            except IndexError:
                return
            waiter.fail(self._refusal(fault))

    def _refusal(self, fault: str) -> NatsError:
        return login.refusal(fault, self._cause)

    # The circuit -----------------------------------------------------------------------------

    def _timed_out(self, lane: Lane) -> str | None:
        """Open the circuit after a timeout, and return what should be logged of it.

        It is the circuit of the session if the server has been silent for long, otherwise of the
        lane.
        """
        connection = self._connection
        if connection is None:
            return None
        # The server has been sent a ping when a part of the timeout had passed.
        if connection.silent_since(max(lane.timeout / 2, _SILENCE_S)):
            if not self._silent:
                self._silent = True
                self._fault = fault = f"NATS at {self.config.where} does not answer"
                return fault
        elif lane.fault is None and lane.probe is not None:
            fault = f"{lane.name} does not answer at the moment"
            self._lane_circuits.open(lane, fault)
            self._lane_circuits.probe(lane)
            return fault
        return None

    def _on_received(self) -> None:
        """Close the circuit, if it is open as the server was silent. On any thread."""
        if self._silent:
            self._silent = False
            self._fault = self._cause = None
            logger.warning("NATS at %s answers again", self.config.where)

    def submit_probe(self, waiter: Waiter) -> None:
        """Send a request even if the circuit of its lane is open."""
        self._queue.append(waiter)
        self._flush()

    # Ending ----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send what is queued, and close the connection."""
        self._ending = True
        if self._supervisor is not None:
            self._supervisor.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.send(self._queue)
            # At exit, only daemon threads still wait. They end with the interpreter, without
            # errors.
            await connection.finish(silently=self._thread.retired)

    def forget(self) -> None:
        """Fail what is queued, and start over. The loop's thread has ended."""
        # First: a thread that adds to the queue after it was looked through calls the next loop.
        self._flush_scheduled = False
        if not self._thread.retired:
            self._refuse_queue("The connection has just been closed")
        self._reset()

    def after_fork(self) -> None:
        """Close the descriptors of the parent's connections in a forked child, and start over."""
        _inherited.append((self._connection, self._supervisor, self._queue))
        forks.close_inherited(self._connector.descriptors())
        self._queue = deque()
        self._reset()


# Objects of the parent, kept in a forked child, as in loop.py.
_inherited: list[object] = []
