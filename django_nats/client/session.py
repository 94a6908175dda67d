"""A process's lasting access to one set of servers, through connections that come and go.

Shared by every thread, every event loop and every alias with the same configuration. It keeps
one connection alive, and it is the circuit: while the server is known to be away, operations
fail at once instead of each waiting for its own timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING

from ..exceptions import AuthenticationFailed, NatsError, NotSent
from . import wire
from .config import ConnectionConfig
from .faults import explain, without_frames
from .loop import LoopThread
from .steps import Lane, Request
from .waiter import Waiter

if TYPE_CHECKING:
    from ..devserver import Endpoint
    from .connection import Connection

logger = logging.getLogger("django_nats")

_RETRY_FIRST, _RETRY_MOST = 0.05, 0.4
_PROBE_PAUSE = 0.1
_ROOM_PAUSE = 0.002
_EMBEDDED_START = 15.0
_chance = SystemRandom()  # the random module's state is the user's: seeded, and watched by tests
_REFUSED = ("authorization violation", "authentication expired", "authentication revoked")


class Session:
    """See the module. ``submit`` and the properties are for any thread, the rest for the loop's."""

    def __init__(self, config: ConnectionConfig, thread: LoopThread) -> None:
        self.config = config
        self._thread = thread
        self._queue: deque[Waiter] = deque()
        self._probes: dict[Lane, asyncio.Task[None]] = {}
        self._reset()

    def _reset(self) -> None:
        for lane in self._probes:
            lane.fault = None  # nobody asks for it any more
        self._probes = {}
        self._waking = False
        self._waker = 0  # a signal's handler does not wait for what it has interrupted
        self._connection: Connection | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._fault: str | None = None
        self._cause: Exception | None = None
        self._silent = self._ending = False
        self._discovered: list[str] = []
        self.epoch = getattr(self, "epoch", 0) + 1
        """Changes with every new connection: what is known of the server is then known anew."""

    def __repr__(self) -> str:
        return f"<Session {self.config.where}{'' if self.connected else ' (not connected)'}>"

    # For every thread ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._silent

    @property
    def connection(self) -> Connection | None:
        """The connection of this moment, for what runs on the loop's thread."""
        return self._connection

    @property
    def max_payload(self) -> int:
        """Bytes, headers included, that the connected server takes in one message."""
        connection = self._connection
        return connection.max_payload if connection is not None else 1024 * 1024

    @property
    def server(self) -> str:
        """Name and version of the connected server, or an empty string."""
        connection = self._connection
        if connection is None or connection.connected_url is None:
            return ""
        version = connection.connected_server_version
        return f"nats-server {version.major}.{version.minor}.{version.patch}"

    @property
    def waiters(self) -> int:
        """How many requests are waiting for an answer or to be sent."""
        connection = self._connection
        return len(self._queue) + (len(connection.outstanding) if connection is not None else 0)

    def submit(self, waiter: Waiter) -> None:
        """Send a waiter's requests. Raises NotSent at once while the circuit is open.

        A caller that blocks is kept, where that is quicker, until the answers are in.
        """
        if self._fault is not None:
            raise self._refusal(self._fault)
        fault = waiter.requests[0].lane.fault
        if fault is not None:
            raise NotSent(fault)
        connection = self._connection
        if connection is not None:
            if not self._queue and connection.carry(waiter):
                return
            connection.make_way()
        self._queue.append(waiter)
        if not self._waking or self._waker == get_ident():
            try:
                self._waking, self._waker = True, get_ident()
                self._thread.call(self._flush)
            except NatsError as error:
                self._waking = False
                self._refuse_queue(str(error))
                raise
            except BaseException:
                self._thread.call(self._flush)  # others, who are queued too, rely on it
                raise

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop's thread, from any. Raises NotSent when there is none."""
        self._thread.call(function)

    def call_if_running(self, function: Callable[[], object]) -> bool:
        """Run a function on the loop's thread, from any, if there is one; whether there is."""
        if self._thread.alive:
            with contextlib.suppress(NotSent):
                self._thread.call(function)
                return True
        return False

    def post(self, request: Request) -> None:
        """Send a request whose answer nobody waits for; not at all while the circuit is open."""
        with contextlib.suppress(NotSent):
            self.submit(Waiter([request], lambda: None))

    def abandon(self, waiter: Waiter) -> None:
        """The caller has gone: leave nothing of it behind."""
        waiter.abandoned = True
        waiter.thread = 0  # the right to read, if it has that, is only the loop's to take back now

        def forget() -> None:
            if waiter.shared is not None:
                waiter.shared.end_reading(waiter)
            if waiter.connection is not None:
                waiter.connection.outstanding.forget(waiter)

        self.call_if_running(forget)

    # Connecting ------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._waking = False
        if self._supervisor is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())
        if self._fault is not None:
            self._refuse_queue(self._fault)
        elif self._connection is not None and not self._connection.send(self._queue):
            self._wait_for_room(self._connection)

    def _wait_for_room(self, connection: Connection) -> None:
        """The servers read more slowly than we write: try again soon, but not for ever."""
        while self._queue[0].abandoned:
            self._queue.popleft()
            if not self._queue:
                return
        first, now = self._queue[0], monotonic()
        first.deadline = first.deadline or now + first.timeout
        first.deadline = max(first.deadline, connection.flowed + first.timeout)
        if now >= first.deadline:
            self._refuse_queue(f"NATS at {self.config.where} takes nothing more at the moment")
        else:
            self._waking = True
            asyncio.get_running_loop().call_later(_ROOM_PAUSE, self._flush)

    async def _supervise(self) -> None:
        """Keep one connection alive, for ever."""
        pause = _RETRY_FIRST
        while True:
            try:
                connection = await self._connect()
            except Exception as error:
                if self._ending:  # what was cancelled may fail with another error, in nats-py
                    return
                self._go_down(explain(error), without_frames(error))
                await asyncio.sleep(_chance.uniform(pause / 2, pause))
                pause = min(pause * 2, _RETRY_MOST)
                continue
            self._come_up(connection)
            loss = await asyncio.shield(connection.lost)
            self._connection = None
            self._go_down(explain(loss), loss)
            self._discovered = [url.geturl() for url in connection.discovered_servers]
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), 1)
            pause = _RETRY_FIRST

    async def _connect(self) -> Connection:
        # nats-py costs some 100 ms to import: paid at first use, not by every manage.py command.
        from .connection import Connection

        config = self.config
        options = config.client_options()
        servers = [*config.servers, *self._discovered]
        if config.embedded is not None:
            endpoint = await asyncio.wait_for(self._embedded(config.embedded), _EMBEDDED_START)
            servers = [endpoint.url]
            options["token"] = endpoint.token
        _chance.shuffle(servers)
        # Before the first failure callers wait for this, and their wait is bounded as a whole.
        share = len(servers) if self._fault is None else 1
        options["connect_timeout"] = config.connect_timeout / share
        failure: Exception | None = None
        for server in servers:
            connection = Connection(self._timed_out, self._heard)
            try:
                opening = asyncio.ensure_future(
                    connection.open(server, options, config.inbox_prefix)
                )
                # Cancelled at exit, it may fail all the same, and nobody is left to be told.
                opening.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.wait_for(opening, options["connect_timeout"])
            except Exception as error:
                failure = error
            else:
                return connection
        raise failure or NotSent("no server is configured")

    async def _embedded(self, directory: str) -> Endpoint:
        from .. import devserver

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, devserver.embedded, directory)

    def _come_up(self, connection: Connection) -> None:
        self._connection = connection
        self.epoch += 1
        self._silent = False
        if self._fault is not None:
            logger.warning("Connected to NATS at %s again", self.config.where)
        self._fault = self._cause = None
        self._flush()

    def _go_down(self, reason: str, cause: Exception) -> None:
        is_news = self._fault is None
        self._fault = f"No connection to NATS at {self.config.where}: {reason}"
        self._cause = cause
        self._silent = False
        self._refuse_queue(self._fault)
        # Last, since a handler of the log may wait for who was just refused.
        if is_news:
            logger.warning("%s", self._fault)

    def _refuse_queue(self, fault: str) -> None:
        # As many as there are now: what a thread adds meanwhile has its own flush to come.
        for _ in range(len(self._queue)):
            try:
                waiter = self._queue.popleft()
            except IndexError:
                return
            waiter.fail(self._refusal(fault))

    def _refusal(self, fault: str) -> NotSent:
        refused = any(each in fault.lower() for each in _REFUSED)
        error = (AuthenticationFailed if refused else NotSent)(fault)
        error.__cause__ = self._cause
        return error

    # The circuit -----------------------------------------------------------------------------

    def _timed_out(self, lane: Lane) -> str | None:
        """Open the circuit; what there is to be logged of it."""
        connection = self._connection
        if connection is None:
            return None
        # It has been asked for a sign of life meanwhile.
        if connection.silent_since(lane.timeout / 2):
            if not self._silent:
                self._silent = True
                self._fault = f"NATS at {self.config.where} does not answer"
                return self._fault
        elif lane.fault is None and lane.probe is not None:
            lane.fault = f"{lane.name} does not answer at the moment"
            self._probes[lane] = asyncio.get_running_loop().create_task(self._probe(lane))
            return lane.fault
        return None

    def _heard(self) -> None:
        if self._silent:
            self._silent = False
            self._fault = self._cause = None
            logger.warning("NATS at %s answers again", self.config.where)

    async def _probe(self, lane: Lane) -> None:
        """Ask, until somebody answers for the lane; nobody's request waits for that."""
        connection = self._connection
        try:
            while lane.probe is not None and connection is self._connection:
                # A pause first: where one of several replicas is mute, the next may answer, and
                # a view must not wait for the mute one again and again.
                await asyncio.sleep(_PROBE_PAUSE)
                answered = asyncio.Event()
                waiter = Waiter([lane.probe], answered.set)
                self._queue.append(waiter)
                self._flush()
                await answered.wait()
                answer = waiter.answers[0]
                if isinstance(answer, wire.Reply) and wire.answers_for_stream(answer):
                    logger.warning("%s answers again", lane.name)
                    return
        finally:
            lane.fault = None
            self._probes.pop(lane, None)

    # Ending ----------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send what is queued and close, at the end of the process."""
        self._ending = True
        if self._supervisor is not None:
            self._supervisor.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.send(self._queue)
            # At exit only daemon threads still wait: they end with the interpreter, not by errors.
            await connection.finish(silently=self._thread.retired)

    def forget(self) -> None:
        """Begin anew, once the loop's thread has ended."""
        if not self._thread.retired:
            self._refuse_queue("The connection has just been closed")
        self._reset()

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connection, and begin anew."""
        connection = self._connection
        _inherited.append((connection, self._supervisor, self._queue))
        for descriptor in connection.descriptors() if connection is not None else ():
            if descriptor >= 0:
                # Only this process's descriptor goes. /dev/null takes its number, so that
                # nothing that still knows the number can harm a descriptor opened later.
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor, inheritable=False)
                os.close(null)
        self._queue = deque()
        self._reset()


_inherited: list[object] = []
