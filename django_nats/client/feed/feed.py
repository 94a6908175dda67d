"""One change feed on one connection: a push consumer, and whether it may have missed something.

A gap in the consumer's sequences shows that a change is missing, and idle heartbeats show that
the feed is alive. Flow control keeps the server from dropping a slow reader (ADR-15).

What arrives does not show how current a feed is: after a process was held up, its socket may hold
heartbeats that are as old as the changes behind them. The feed asks instead. Once the server has
answered a ping, all that it had sent before has been read, so the feed is as current as the
moment at which the ping was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...exceptions import NatsError, NotSent, UnexpectedReply
from ...realtime import monotonic
from ..kv.bucket import Bucket
from ..kv.entry import EVERYTHING
from ..protocol import documents, wire
from ..protocol.steps import Lane, Request, Steps
from ..protocol.wire import Reply
from ..streams.config import NANOSECONDS
from ..streams.scan import delivery_of, subject_matcher
from ..transport.driver_errors import explain

if TYPE_CHECKING:
    from ..transport.connection import Connection

CONSUMER_PREFIX = "feed-"
_MIN_HEARTBEAT_S = 0.1
"""The server refuses shorter intervals."""
_PROOFS_PER_LIMIT = 5
"""How many pings are sent, and heartbeats received, while one of them is good for."""
_CATCH_UP_LIMITS = 2
"""A replica must catch up with its stream within this many times as long."""
_INACTIVE_S = 5
"""How long after its reader has gone the server removes a feed."""


class Listener(Protocol):
    """The object that a feed reports to.

    ``changed`` and ``shut`` are called on any thread, under the connection's lock. They must not
    wait, log or raise. ``ended`` is called on any thread, and must not wait. The others are
    called on the loop's thread.
    """

    def position(self, stream: Mapping[str, Any]) -> dict[str, Any]:
        """Return where to begin, given STREAM.INFO.

        The result has the consumer's deliver_policy, and the fields that belong to it.
        """

    def opened(self, position: int) -> None:
        """Take note that every change after this sequence of the stream will be reported."""

    def changed(self, subject: str, revision: int, header: bytes) -> None:
        """Take note that a message was stored."""

    def proven(self, moment: float, stored: int) -> None:
        """Take note that all changes up to a moment of the monotonic clock were reported.

        ``stored`` is the sequence up to which the stream's leader, or a lone server, has stored
        the stream. The replica that sends the feed may be ahead of the leader.
        """

    def shut(self) -> None:
        """Take note that changes may be missed from now on, until opened() is called."""

    def refused(self, error: NatsError) -> None:
        """Take note that the server refuses to open the feed, which is tried again later."""

    def ended(self, error: NatsError) -> None:
        """Take note that the feed has ended by itself. It stays closed until started again."""


class Broken(NatsError):
    """The feed may have missed a change."""


def create_request(
    bucket: Bucket,
    name: str,
    deliver_to: str,
    filters: Sequence[str],
    within: float,
    position: Mapping[str, Any],
) -> Request:
    """Return the request that creates a feed's consumer.

    ``deliver_to`` is the subject on which the changes arrive, ``filters`` are the subjects to
    follow, and ``position`` is what Listener.position() returns. ``within`` is how long a proof
    that the feed is current is good for, in seconds.
    """
    config = {
        "name": name,
        "deliver_subject": deliver_to,
        "ack_policy": "none",
        "headers_only": True,
        "flow_control": True,
        "idle_heartbeat": int(max(_MIN_HEARTBEAT_S, within / _PROOFS_PER_LIMIT) * NANOSECONDS),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _INACTIVE_S * NANOSECONDS,
        "filter_subjects": list(filters),
        **position,
    }
    stream = bucket.stream
    payload = wire.compact_json({"stream_name": bucket.config.stream, "config": config})
    return stream.api_request(stream.api.create_consumer(name), payload)


class Feed:
    """One consumer on one connection. Once broken, it is not used again.

    It is made on the loop's thread.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: Bucket,
        filters: Sequence[str],
        listener: Listener,
        within: float,
        drive: Callable[[Steps[int]], Awaitable[int]],
    ) -> None:
        """Subscribe to the subject on which the changes will arrive.

        ``within`` is in seconds: a feed that cannot prove itself current for so long is broken.
        ``drive`` runs the steps of an operation on the loop.
        """
        self._drive = drive
        self._lane = Lane(f"the change feed of the {bucket.config.title}", within)
        self._connection = connection
        self._bucket = bucket
        self._filters = filters
        self._listener = listener
        self._within = within
        self._loop = asyncio.get_running_loop()
        self._name = f"{CONSUMER_PREFIX}{secrets.token_hex(8)}"
        self._ack_prefix = f"{bucket.config.stream}.{self._name}.".encode()
        self._matchers = [subject_matcher(each) for each in filters]
        self._fault: asyncio.Future[str] = self._loop.create_future()
        self._reason = ""
        """Why the feed is broken. Empty while it is not."""
        self._refusal: NatsError | None = None
        """The error with which the server has refused the feed's subscription."""
        self._delivered = 0
        """Sequence of the last change, as the consumer counts."""
        self._revision = 0
        """Sequence of the last change in the stream."""
        self._received_at = monotonic()
        """When anything last arrived."""
        self._position = 0
        """Sequence in the stream up to which the feed has reported every change."""
        self._unproven: deque[tuple[int, float]] = deque()
        """Positions that the feed must reach, each with the time as of which it is then current."""
        self._current_at = 0.0
        """The latest of these times that the feed has reached."""
        self._behind_at: float | None = None
        """When the last change was stored, if the server has further ones for the feed."""
        self._moved_at = 0.0
        """When the last change arrived."""
        self._stalled = False
        """Whether the server holds back changes until it gets an answer to its flow control."""
        self.lag = 0.0
        """Seconds from the time the last change was stored until it arrived."""
        self._sid, deliver_to = connection.listen(self._receive, self._refuse)
        self._control = deliver_to.encode()

    def open(self) -> Steps[None]:
        """Create the consumer. Raise the error if the server refuses it, and Broken."""
        stream = yield from self._bucket.stream.opening.open()
        self._raise_refusal()  # the server would wait for the subscription before it answers
        position = self._listener.position(stream)
        request = create_request(
            self._bucket, self._name, self._control.decode(), self._filters, self._within, position
        )
        self._current_at = monotonic()
        reply = yield from self._bucket.stream.ask(request)
        consumer = wire.parse_api(reply, documents.NEW_CONSUMER)
        with self._connection.outstanding.lock:
            self._reach(int(consumer["delivered"]["stream_seq"]))
        if (yield from self._bucket.stream.opening.open())["created"] != stream["created"]:
            raise Broken("The stream was recreated, and its sequences start again")
        self._raise_refusal()

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    async def follow(self) -> None:
        """Report to the listener that the feed is open, and how current it is, until it breaks.

        Raise Broken, NotSent if the connection was lost, or the error with which the server
        refuses the feed.
        """
        with self._connection.outstanding.lock:
            if not self._reason:
                self._listener.opened(self._position)
        while True:
            sent = monotonic()
            needed, stored = await self._ask_position()
            if self._reason:
                raise self._refusal or Broken(self._reason)
            if self._connection.lost.done():
                raise NotSent("The connection was lost")
            # All that the server had sent has been read by now, so it is the feed that is silent.
            if sent - self._received_at > self._within:
                raise Broken("Neither changes nor heartbeats arrive on the feed")
            behind = self._behind_at
            held_up = behind is not None or self._stalled
            if held_up and sent - self._moved_at > self._within:
                raise Broken("The feed has stalled, or the changes that it announced are gone")
            with self._connection.outstanding.lock:
                first = self._unproven[0][1] if self._unproven else sent
                self._unproven.append((needed, sent))
            # A replica that still sends changes, however late, will catch up.
            if sent - max(first, self._moved_at) > _CATCH_UP_LIMITS * self._within:
                raise Broken("The replica that sends the feed does not catch up with its stream")
            self._listener.proven(
                self._current_at if behind is None else min(self._current_at, behind), stored
            )
            ends: set[asyncio.Future[Any]] = {self._fault, self._connection.lost}
            await asyncio.wait(
                ends,
                timeout=self._within / _PROOFS_PER_LIMIT,
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _ask_position(self) -> tuple[int, int]:
        """Wait until all that the server had sent before this call has been read.

        Return the sequence that the feed must reach to be current as of this call, and the one up
        to which the leader has stored the stream. A lone server has stored all that it sends. One
        of several replicas may be behind, or cut off from the others, so that the leader is asked
        for its last sequence.
        """
        if self._bucket.stream.opening.replicated:
            last = await self._drive(self._last_sequence())
            return last, last
        await self._connection.ping()
        return 0, EVERYTHING

    def _last_sequence(self) -> Steps[int]:
        reply = yield Request(self._lane, self._bucket.stream.api.info)
        document = wire.parse_api(reply, documents.STREAM)
        return int(document["state"]["last_seq"])

    def close(self) -> None:
        """Unsubscribe, and delete the consumer."""
        self._break("The feed was closed")
        self._connection.unlisten(self._sid)
        delete = self._bucket.stream.api.delete_consumer(self._name)
        self._connection.post(delete.encode())

    # On any thread, under the connection's lock ----------------------------------------------

    def _receive(self, reply: Reply) -> None:
        self._received_at = monotonic()
        if self._reason:
            return
        try:
            if reply.subject == self._control:
                self._take_control(reply)
            else:
                self._take_change(reply)
        except UnexpectedReply as error:
            self._break(str(error))

    def _take_change(self, reply: Reply) -> None:
        revision, delivered, stored, left = delivery_of(reply, self._ack_prefix)
        if not any(matches(reply.subject) for matches in self._matchers):
            return self._break("The feed received a message of a subject that it did not ask for")
        if delivered != self._delivered + 1:
            first, last = self._delivered + 1, delivered - 1
            return self._break(f"Changes {first} to {last} of the feed are missing")
        if revision <= self._revision:
            return self._break("The stream's sequences have started again")
        self._delivered, self._revision = delivered, revision
        moment = stored - self._bucket.clock.offset
        self.lag = max(0.0, self._received_at - moment)
        self._behind_at = moment if left else None
        self._moved_at = self._received_at
        self._stalled = False
        self._reach(revision)
        # Another client may store a subject that is not UTF-8. Nothing may raise here.
        subject = reply.subject.decode(errors="replace")
        self._listener.changed(subject, revision, reply.header)
        return None

    def _take_control(self, reply: Reply) -> None:
        """Handle a heartbeat, or a flow control message, which asks if all before it was read."""
        last = wire.count_field(reply.header, "Nats-Last-Consumer")
        if last is not None and last != self._delivered:
            return self._break(f"Changes {self._delivered + 1} to {last} of the feed are missing")
        stalled = wire.subject_field(reply.header, "Nats-Consumer-Stalled")
        self._stalled = stalled is not None
        if not self._stalled:
            self._reach(wire.count_field(reply.header, "Nats-Last-Stream") or 0)
        if stalled is not None:
            self._connection.post(stalled)
        elif reply.reply_to:
            self._connection.post(reply.reply_to)
        else:
            self._behind_at = None  # an idle heartbeat: the server has no further changes
        return None

    def _reach(self, position: int) -> None:
        """Note that every change up to a sequence of the stream has been reported.

        That makes the feed as current as the questions whose positions it has now reached.
        """
        self._position = max(self._position, position)
        while self._unproven and self._unproven[0][0] <= self._position:
            self._current_at = self._unproven.popleft()[1]

    def _refuse(self, error: NatsError) -> None:
        if not self._reason:
            self._refusal = error
            self._break(explain(error))

    def _break(self, why: str) -> None:
        if not self._reason:
            self._reason = why
            self._listener.shut()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._fail, why)

    def _fail(self, why: str) -> None:
        if not self._fault.done():
            self._fault.set_result(why)
