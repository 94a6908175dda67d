"""One change feed on one connection: a push consumer, and whether it can have missed something.

Consumer sequences show a gap, idle heartbeats that the feed is alive, and flow control keeps a slow
reader from being cut off (ADR-15).

How current a feed is, is judged by questions and not by what arrives. A process that was held up
finds heartbeats in its socket that are as old as the changes behind them; but once the server has
answered a ping, all that it had sent before has been read, so that the feed is as current as the
moment at which the ping was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import NatsError, NotSent
from . import wire
from .consumer import metadata
from .kv import Bucket
from .steps import Lane, Request, Steps
from .streamconfig import NANOSECONDS
from .wire import Reply

if TYPE_CHECKING:
    from .connection import Connection

_LEAST_HEARTBEAT = 0.1  # seconds; the server refuses less
_PROOFS = 5  # pings, and heartbeats, within the time that one of them is good for
_CATCH_UP = 2  # times that same time, in which a replica has to get where the stream was
_ABANDONED = 5  # seconds after which the server removes a feed that nobody listens to


class Listener(Protocol):
    """Who follows a feed.

    ``changed`` and ``shut`` are called on any thread, under the connection's lock: they may not
    wait, log or raise. The others are called on the loop's thread.
    """

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        """Where to begin: deliver_policy, and what belongs to it; given STREAM.INFO."""

    def opened(self) -> None:
        """Every change from that position on is told."""

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        """A message was stored."""

    def proven(self, moment: float) -> None:
        """All that was stored up to a moment of the monotonic clock has been told."""

    def shut(self) -> None:
        """Something may be missed from now on, until ``opened`` says otherwise."""

    def refused(self, error: NatsError) -> None:
        """The server does not let the feed be opened; that is tried again, now and then."""

    def ended(self, error: NatsError) -> None:
        """No feed is opened any more, though nobody stopped it: until it is started again. Called
        on any thread, and may not wait."""


class Broken(NatsError):
    """The feed may have missed something."""


def create_request(
    bucket: Bucket,
    name: str,
    deliver_to: str,
    filters: Sequence[str],
    within: float,
    position: Mapping[str, Any],
) -> Request:
    """What asks the server for a feed's consumer."""
    config = {
        "name": name,
        "deliver_subject": deliver_to,
        "ack_policy": "none",
        "headers_only": True,
        "flow_control": True,
        "idle_heartbeat": int(max(_LEAST_HEARTBEAT, within / _PROOFS) * NANOSECONDS),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _ABANDONED * NANOSECONDS,
        "filter_subjects": list(filters),
        **position,
    }
    where = bucket.config.stream
    payload = wire.compact_json({"stream_name": where, "config": config})
    return bucket.api_request(f"$JS.API.CONSUMER.CREATE.{where}.{name}", payload)


class Feed:
    """One life of a feed. Made on the loop's thread."""

    def __init__(
        self,
        connection: Connection,
        bucket: Bucket,
        filters: Sequence[str],
        listener: Listener,
        within: float,
        drive: Callable[[Steps[int]], Awaitable[int]],
    ) -> None:
        """``within``: seconds after which a feed that cannot prove itself current is broken."""
        self._drive = drive
        self._lane = Lane(f"the change feed of the {bucket.config.title}", within)
        self._connection = connection
        self._bucket = bucket
        self._filters = filters
        self._listener = listener
        self._within = within
        self._loop = asyncio.get_running_loop()
        self._name = f"feed-{secrets.token_hex(8)}"
        self._fault: asyncio.Future[str] = self._loop.create_future()
        self._why = ""
        self._told = self._revision = 0
        self._heard = monotonic()
        self._position = 0
        """How far in the stream the feed is."""
        self._asked: deque[tuple[int, float]] = deque()
        """The questions that were answered, each with how far the feed must come to be as current
        as when it was asked."""
        self._current = 0.0
        """The last such moment that the feed has reached."""
        self._behind: float | None = None
        """When the last change was stored that has been told, if more are to come."""
        self._moved = 0.0
        """When a change has last been told."""
        self._stalled = False
        """Whether the server waits for an answer, and keeps back what has changed meanwhile."""
        self.lag = 0.0
        """Seconds between the last change and its arrival."""
        self._sid, deliver_to = connection.listen(self._hear)
        self._control = deliver_to.encode()

    def open(self) -> Steps[None]:
        """Have the server tell of changes."""
        stream = yield from self._bucket.open()
        position = self._listener.position(stream)
        request = create_request(
            self._bucket, self._name, self._control.decode(), self._filters, self._within, position
        )
        self._current = monotonic()
        wire.parse_api((yield from self._bucket.ask(request)))
        if (yield from self._bucket.open())["created"] != stream["created"]:
            raise Broken("The stream was made anew, and counts from the start")

    async def follow(self) -> None:
        """Tell the listener that the feed is open, and how current it is, until it is broken.

        Raises Broken, or NotSent when the connection was lost.
        """
        with self._connection.outstanding.lock:
            if not self._why:
                self._listener.opened()
        while True:
            sent = monotonic()
            needed = await self._ask()
            if self._why:
                raise Broken(self._why)
            if self._connection.lost.done():
                raise NotSent("The connection was lost")
            # What the server had sent has been read by now: the silence is the feed's.
            if sent - self._heard > self._within:
                raise Broken("The feed has fallen silent")
            behind = self._behind
            held_up = behind is not None or self._stalled
            if held_up and sent - self._moved > self._within:
                raise Broken("The feed has stalled, or what it was to tell of is gone")
            with self._connection.outstanding.lock:
                first = self._asked[0][1] if self._asked else sent
                self._asked.append((needed, sent))
            # One who is told of changes, however late, will get there.
            if sent - max(first, self._moved) > _CATCH_UP * self._within:
                raise Broken("The feed is told of by a replica that gets no further")
            self._listener.proven(self._current if behind is None else min(self._current, behind))
            ends: set[asyncio.Future[Any]] = {self._fault, self._connection.lost}
            await asyncio.wait(
                ends,
                timeout=self._within / _PROOFS,
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _ask(self) -> int:
        """Wait until what the server had sent before has been read; what sequence a feed must have
        passed, after that, to be current.

        Any will do where the feed is told by whoever has the stream. One of several replicas may be
        behind, or cut off from the others: only their leader knows what there is to be told.
        """
        if self._bucket.replicated:
            return await self._drive(self._last_sequence())
        await self._connection.ping()
        return 0

    def _last_sequence(self) -> Steps[int]:
        reply = yield Request(self._lane, f"$JS.API.STREAM.INFO.{self._bucket.config.stream}")
        return int(wire.parse_api(reply)["state"]["last_seq"])

    def close(self) -> None:
        """Listen no longer, and have the server forget the consumer."""
        self._break("The feed was closed")
        self._connection.unlisten(self._sid)
        delete = f"$JS.API.CONSUMER.DELETE.{self._bucket.config.stream}.{self._name}"
        self._connection.post(delete.encode())

    # On any thread, under the connection's lock ----------------------------------------------

    def _hear(self, reply: Reply) -> None:
        self._heard = monotonic()
        if self._why:
            return None
        if reply.subject == self._control:
            self._obey(reply)
            return None
        fields = metadata(reply)
        revision, told, stored, left = map(int, fields[:4])
        if told != self._told + 1:
            return self._break(f"Changes {self._told + 1} to {told - 1} of the feed are missing")
        if revision <= self._revision:
            return self._break("The stream counts from the start again")
        self._told, self._revision = told, revision
        moment = stored / NANOSECONDS - self._bucket.clock
        self.lag = max(0.0, self._heard - moment)
        self._behind = moment if left else None
        self._moved = self._heard
        self._stalled = False
        self._reach(revision)
        # Not all that others store need be UTF-8; and nothing of it may raise here.
        subject = reply.subject.decode(errors="replace")
        self._listener.changed(subject, revision, reply.header)
        return None

    def _obey(self, reply: Reply) -> None:
        """A heartbeat, or the question whether all up to here has been read."""
        last = wire.field(reply.header, "Nats-Last-Consumer")
        if last is not None and int(last) != self._told:
            return self._break(f"Changes {self._told + 1} to {last} of the feed are missing")
        stalled = wire.field(reply.header, "Nats-Consumer-Stalled")
        self._stalled = stalled is not None
        if not self._stalled:
            self._reach(int(wire.field(reply.header, "Nats-Last-Stream") or 0))
        if stalled is not None:
            self._connection.post(stalled.encode())
        elif reply.reply_to:
            self._connection.post(reply.reply_to)
        else:
            self._behind = None  # idle: whatever was to come has come
        return None

    def _reach(self, position: int) -> None:
        """The feed is alive, and as far as a sequence: after these answers, so later than they."""
        self._position = max(self._position, position)
        while self._asked and self._asked[0][0] <= self._position:
            self._current = self._asked.popleft()[1]

    def _break(self, why: str) -> None:
        if not self._why:
            self._why = why
            self._listener.shut()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._fail, why)

    def _fail(self, why: str) -> None:
        if not self._fault.done():
            self._fault.set_result(why)
