"""How one JetStream stream is opened: found on the server, or created there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import SystemRandom
from typing import Any, Generic, TypeVar

from ...exceptions import (
    NatsError,
    NoLeader,
    NotServed,
    OutcomeUnknown,
    ServerError,
    ServerTooOld,
    Unavailable,
    UnexpectedReply,
)
from ...realtime import monotonic
from ..protocol import documents, server_errors, wire
from ..protocol.steps import Follow, Lane, Pause, Request, Steps
from ..protocol.wire import Reply
from .api import Api, domain_of
from .clock import Clock
from .config import StreamConfig
from .facts import Facts
from .lanes import Lanes
from .recent_writes import Recent
from .refusals import Refusals
from .requirements import require
from .server import Server

C = TypeVar("C", bound=StreamConfig)

FIRST_PAUSE_S = 0.02
"""Before a stream without a leader is asked a second time."""
_LAST_PAUSE_S = 0.2
_NO_PEERS_QUIET_S = 60.0
_random = SystemRandom()  # the random module's state belongs to the user


class Opening(Generic[C]):
    """The opening of one stream, and what the server has said of the stream.

    The stream is opened once for each connection: found by STREAM.INFO, and created if it does not
    exist.
    """

    def __init__(
        self,
        config: C,
        server: Server,
        recent: Recent,
        *,
        clock: Clock | None = None,
        on_open: Callable[[Mapping[str, Any]], object] = lambda document: None,
        on_refusal: Callable[[ServerError], ServerError] | None = None,
    ) -> None:
        """Take a configuration, and open nothing yet.

        With ``clock``, requests keep the estimate of the server's time. ``on_open`` is called with
        the server's document each time the stream has been opened. ``on_refusal`` gets the error
        with which the server refuses to create the stream, and returns the error to raise.
        """
        self.config = config
        self.server = server
        self.recent = recent
        self._clock = clock
        self.api = Api(config.api_prefix, config.stream)
        self.lanes = Lanes(config, self.api, server)
        self.replicated = config.replicas > 1
        """Whether more than one server stores it: as of its last opening, or by the settings."""
        self.domain: bytes | None = None
        """The JetStream domain of the servers that store it, as of its last opening."""
        self._on_open = on_open
        self._refusals = Refusals(config)
        self._creation_error = on_refusal or self._refusals.creation
        self._opened = -1
        """The epoch of the connection that has opened the stream."""
        self._known_as_of = -math.inf
        """When the server was asked for what is known of the stream, by the monotonic clock."""
        self._ever_opened = False
        self._facts = Facts(config.stream)
        self._no_peers_at = -math.inf
        """When a call last waited in vain for servers to store the stream, by that clock."""
        self._patience_s = max(server.connect_timeout, config.request_timeout)

    @property
    def is_open(self) -> bool:
        """Whether this connection has opened the stream."""
        return self._opened == self.server.epoch

    @property
    def is_ready(self) -> bool:
        """Whether this connection has opened the stream, and what is known of it still counts."""
        return self._opened == self.server.epoch and not self._is_due()

    @property
    def has_notices(self) -> bool:
        """Whether the server says when the stream is changed, on a subscription of its own."""
        return self._facts.follow is not None

    def _is_due(self) -> bool:
        now, clock = monotonic(), self._clock
        due = now > self._facts.due or (clock is not None and now > clock.due)
        return due and self.lanes.writes.fault is None

    def reopen(self) -> None:
        """Have the next operation look for the stream again: it may have been deleted."""
        self._opened = -1

    def ready(self) -> Steps[None]:
        """Open the stream unless this connection already has, and look at it again if that is due.

        Another process may be creating a stream that this process has never opened. Its first
        leader, and the servers for its replicas, are waited for as long as a connection is, or a
        request.
        """
        if self.is_ready:
            return
        if self._ever_opened:
            # Known from an earlier connection, it need not be found again to be read: replicas
            # answer direct gets while the stream elects a leader.
            if self.lanes.writes.fault is None:
                is_known = self.is_open
                asked_on = self.server.epoch_of_requests
                try:
                    yield from self.open(self.lanes.reopening)
                except UnexpectedReply:
                    raise
                except Unavailable as error:
                    # What this connection knows counts on: the request itself may be answered.
                    if is_known:
                        return
                    if isinstance(error, NotServed):
                        raise
                    # Or every call would wait for this. A question that was lost with its
                    # connection says nothing about the leader.
                    if isinstance(error, OutcomeUnknown) and self.server.epoch == asked_on:
                        self.lanes.suspend(self.lanes.writes)
            return
        deadline = monotonic() + self._patience_s
        pause = FIRST_PAUSE_S
        while True:
            self.lanes.require_leader()
            try:
                yield from self.open()
                return
            except UnexpectedReply:
                raise
            except (NoLeader, OutcomeUnknown):
                if monotonic() >= deadline:
                    self.lanes.suspend(self.lanes.writes)
                    raise
            except ServerError as error:
                if not self._may_find_peers(error, deadline):
                    raise
            pause = yield from pause_for_leader(pause)

    def _may_find_peers(self, error: ServerError, deadline: float) -> bool:
        """Return True if a stream was refused for servers that a new cluster may still find.

        The server refuses too many replicas with the same error, so that only one call waits.
        """
        now = monotonic()
        if error.err_code != server_errors.NO_PEERS or now - self._no_peers_at < _NO_PEERS_QUIET_S:
            return False
        if now >= deadline:
            self._no_peers_at = now
            return False
        return True

    def open(self, lane: Lane | None = None) -> Steps[dict[str, Any]]:
        """Find the stream, or create it, and return the server's document about it.

        Raises what the config's ``require`` raises if the stream exists but cannot serve,
        ServerTooOld, or ServerError.
        """
        try:
            with self._facts.asking() as asked:
                return (yield from self._open(lane, asked))
        except ServerError as error:
            self._refusals.note(error)
            raise

    def _open(self, lane: Lane | None, asked: float) -> Steps[dict[str, Any]]:
        if self._clock is not None:
            self._clock.note_question(asked)
        newest, epoch = self.recent.newest, self.server.epoch_of_requests
        try:
            document = yield from self.info(lane, self._facts.follow)
        except UnexpectedReply:
            # An older server says less. If it does not answer this, the first answer counts.
            with suppress(Unavailable):
                yield from self._require_server()
            raise
        except NotServed as error:
            if error.err_code == server_errors.STREAM_UNSUPPORTED:
                yield from self._require_server()
            raise
        if document is None:
            document = yield from self.create()
        if asked < self._known_as_of:
            return document  # the answer to a later question was handled before this one
        self._known_as_of = asked
        self.domain = domain_of(document, self.config)
        try:
            require(self.config, document["config"])
        except NatsError:
            self._opened = -1
            yield from self._require_server()
            raise
        self.replicated = document["config"]["num_replicas"] > 1
        self.recent.note_stream(document["created"], document["state"]["last_seq"], newest)
        self._on_open(document)
        self._opened = epoch  # another connection may have been opened since the answer
        self._ever_opened = True
        self._refusals.end()
        return document

    def info(
        self, lane: Lane | None = None, follow: Follow | None = None
    ) -> Steps[dict[str, Any] | None]:
        """Return the server's document about the stream (STREAM.INFO); None if there is none."""
        sent = monotonic()
        reply = yield self._info_request(lane, follow)
        document = self._document(reply)
        if document is None or self._clock is None:
            return document
        if not self._clock.note_answer(reply, sent):
            # The wait may have included connecting: too loose a measure for a clock.
            sent = monotonic()
            reply = yield self._info_request(lane)
            document = self._document(reply)
            if document is not None:
                self._clock.note_answer(reply, sent)
        return document

    def create(self) -> Steps[dict[str, Any]]:
        """Create the stream as settings say, and return the server's document about it."""
        yield from self._require_server()
        payload = wire.compact_json(self.config.stream_config())
        request = Request(self.lanes.api, self.api.create, payload)
        try:
            wire.parse_api((yield request))
        except ServerError as error:
            if error.err_code != server_errors.STREAM_NAME_IN_USE:
                raise self._creation_error(error) from error
        document = yield from self.info()
        if document is None:
            # The other servers of a cluster may not know yet what one of them was asked to create.
            raise NoLeader(f"The stream {self.config.stream} is being created, or was deleted")
        return document

    def _info_request(self, lane: Lane | None = None, follow: Follow | None = None) -> Request:
        lanes = self.lanes
        lane = lane or (lanes.writes if self._ever_opened else lanes.first_opening)
        return Request(lane, self.api.info, follow=follow)

    def _document(self, reply: Reply) -> dict[str, Any] | None:
        if wire.status(reply) == 503:
            raise self._refusals.not_enabled(was_open=self._ever_opened)
        try:
            document = wire.parse_api(reply, documents.STREAM)
        except NotServed as error:
            raise self._refusals.opening(error) from error
        except ServerError as error:
            if error.err_code == server_errors.STREAM_NOT_FOUND:
                return None
            raise
        if document["config"]["name"] != self.config.stream:
            raise UnexpectedReply(
                f"The server answered about a stream other than {self.config.stream}"
            )
        return document

    def _require_server(self) -> Steps[None]:
        request = Request(self.lanes.api, self.api.account)
        answer = wire.parse_api((yield request), documents.ACCOUNT)
        level = answer["api"].get("level", 0)
        if level < self.config.api_level:
            raise ServerTooOld(
                f"The {self.config.title} needs nats-server {self.config.minimum_server} or newer "
                f"(JetStream API level {self.config.api_level}), but this is "
                f"{self.server.server} (level {level})."
            )


def pause_for_leader(pause: float) -> Steps[float]:
    """Wait for about ``pause`` seconds, and return the pause before the next try."""
    yield Pause(_random.uniform(0.5, 1) * pause)
    return min(2 * pause, _LAST_PAUSE_S)
