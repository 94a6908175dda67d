"""One JetStream stream: found on the server, or created there, and asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import SystemRandom
from typing import Any, Generic, TypeVar

from ...exceptions import (
    NatsError,
    NoLeader,
    NotSent,
    NotServed,
    OutcomeUnknown,
    ServerError,
    ServerTooOld,
    Unavailable,
    UnexpectedReply,
)
from ...realtime import monotonic
from ..protocol import documents, server_errors, wire
from ..protocol.steps import Follow, Lane, Pause, Publications, Request, Steps
from ..protocol.wire import Reply
from .api import Api, domain_of
from .clock import Clock
from .config import StreamConfig
from .facts import Facts
from .lanes import Lanes
from .recent_writes import Recent
from .refusals import Refusals
from .requests import raise_error, send_all, unanswered, without_stream
from .requirements import require
from .server import Server

C = TypeVar("C", bound=StreamConfig)

FIRST_PAUSE_S = 0.02
"""Before a stream without a leader is asked a second time."""
_LAST_PAUSE_S = 0.2
_NO_PEERS_QUIET_S = 60.0
_SHORT_WAIT = 0.05
"""The part of REQUEST_TIMEOUT that calls wait for a leader soon after a call waited in vain."""
_random = SystemRandom()  # the random module's state belongs to the user


class Stream(Generic[C]):
    """One stream, as seen by this process.

    It is opened once for each connection: found by STREAM.INFO, and created if it does not exist.
    Every request then goes by ``ask`` or ``pipeline``, which wait for a leader if the stream has
    none.
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
        self.clock = clock
        self.replicated = config.replicas > 1
        self._on_open = on_open
        self._refusals = Refusals(config)
        self._creation_error = on_refusal or self._refusals.creation
        self._opened = -1
        """The epoch of the connection that has opened the stream."""
        self._known_as_of = -math.inf
        """When the server was asked for what is known of the stream, by the monotonic clock."""
        self._ever_opened = False
        self._facts = Facts(config.stream)
        self._in_vain = -math.inf
        """When a call last waited for a leader in vain, by the monotonic clock."""
        self._no_peers_at = -math.inf
        """When a call last waited in vain for servers to store the stream, by that clock."""
        self.domain: bytes | None = None
        """The JetStream domain of the servers that store it, as of its last opening."""
        self.api = Api(config.api_prefix, config.stream)
        self.lanes = Lanes(config, self.api, server.connect_timeout)
        self._patience_s = max(server.connect_timeout, config.request_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.stream}>"

    # Opening ---------------------------------------------------------------------------------

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
        now, clock = monotonic(), self.clock
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
                        self._suspend(self.lanes.writes)
            return
        deadline = monotonic() + self._patience_s
        pause = FIRST_PAUSE_S
        while True:
            if self.lanes.writes.fault is not None:
                raise NotSent(self.lanes.writes.fault)
            try:
                yield from self.open()
                return
            except UnexpectedReply:
                raise
            except (NoLeader, OutcomeUnknown):
                if monotonic() >= deadline:
                    self._suspend(self.lanes.writes)
                    raise
            except ServerError as error:
                if not self._may_find_peers(error, deadline):
                    raise
            pause = yield from _pause_for_leader(pause)

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
        if self.clock is not None:
            self.clock.note_question(asked)
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
        if document is None or self.clock is None:
            return document
        if not self.clock.note_answer(reply, sent):
            # The wait may have included connecting: too loose a measure for a clock.
            sent = monotonic()
            reply = yield self._info_request(lane)
            document = self._document(reply)
            if document is not None:
                self.clock.note_answer(reply, sent)
        return document

    def create(self) -> Steps[dict[str, Any]]:
        """Create the stream as settings say, and return the server's document about it."""
        yield from self._require_server()
        payload = wire.compact_json(self.config.stream_config())
        request = self.api_request(self.api.create, payload)
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

    def api_request(self, subject: str, payload: bytes = b"") -> Request:
        """Return a request to the JetStream API, which may take longer than one for a value."""
        return Request(self.lanes.api, subject, payload)

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
        request = self.api_request(self.api.account)
        answer = wire.parse_api((yield request), documents.ACCOUNT)
        level = answer["api"].get("level", 0)
        if level < self.config.api_level:
            raise ServerTooOld(
                f"The {self.config.title} needs nats-server {self.config.minimum_server} or newer "
                f"(JetStream API level {self.config.api_level}), but this is "
                f"{self.server.server} (level {level})."
            )

    # Asking ----------------------------------------------------------------------------------

    def ask(self, request: Request) -> Steps[Reply]:
        """Open the stream if necessary, send one request, and return its reply.

        If the request reached no stream, look for the stream, and repeat the request for at most
        REQUEST_TIMEOUT.
        """
        if not self.is_ready:
            yield from self.ready()
        return (yield from self.insist(request, (yield request)))

    def insist(self, request: Request, reply: Reply) -> Steps[Reply]:
        """Return the reply to a request, which is repeated if it reached no stream: see ask()."""
        if not wire.is_without_stream(reply):
            return reply
        answers: list[Any] = [reply]
        yield from self._repeat([request], answers)
        return raise_error(answers[0])  # type: ignore[no-any-return]

    def publications(
        self, subjects: list[bytes], payloads: list[bytes], headers: list[bytes]
    ) -> Publications:
        """Return messages to publish in this stream. Each needs a header."""
        stream = self.config.stream.encode()
        return Publications(self.lanes.writes, stream, subjects, payloads, headers)

    def pipeline(self, requests: list[Request] | Publications) -> Steps[list[Any]]:
        """Send many requests in as few writes as their size allows.

        Return the answer of each, or the NatsError with which it failed. Raises NotSent only if
        none of them was sent.
        """
        yield from self.ready()
        answers = yield from send_all(requests)
        try:
            yield from self._repeat(requests, answers)
        except NotSent as error:
            if len(without_stream(answers)) == len(answers):
                raise
            raise OutcomeUnknown(f"Only a part was done: {error}") from error
        return answers

    def ask_leader(self, request: Request) -> Steps[Reply]:
        """Send a question that only the leader answers and that changes nothing.

        During an election servers may not answer at all, so it is asked again until
        REQUEST_TIMEOUT is over.
        """
        deadline = monotonic() + self.config.request_timeout
        while True:
            self._require_leader()
            try:
                return (yield from self.ask(request))
            except UnexpectedReply:
                raise
            except OutcomeUnknown:
                if monotonic() >= deadline:
                    self._suspend(self.lanes.questions)
                    raise

    def pipeline_to_leader(self, requests: list[Request]) -> Steps[list[Any]]:
        """Send many questions as ``ask_leader`` sends one. Return each answer, or its failure."""
        deadline = monotonic() + self.config.request_timeout
        answers: list[Any] = [None] * len(requests)
        missing = list(range(len(requests)))
        while True:
            self._require_leader()
            asked = yield from self.pipeline([requests[index] for index in missing])
            for index, answer in zip(missing, asked, strict=True):
                answers[index] = answer
            missing = unanswered(answers)
            if not missing:
                return answers
            if monotonic() >= deadline:
                self._suspend(self.lanes.questions)
                return answers

    def post(self, *requests: Request) -> None:
        """Send requests, each after the answer to the one before, without waiting for any.

        A generator that is being closed can still do this.
        """
        self.server.post(*requests)

    # While there is no leader ----------------------------------------------------------------

    def _repeat(self, requests: Sequence[Request], answers: list[Any]) -> Steps[None]:
        """Repeat the requests that reached no stream, and put their answers in place.

        None of them has been applied. They are repeated until a leader answers, or REQUEST_TIMEOUT
        is over; soon after another call has waited in vain, only for a moment. The probe cannot
        show everything: the leader may answer it although published messages reach no stream, as
        where an account imports the JetStream API alone.
        """
        missing = without_stream(answers)
        if not missing:
            return
        begun_at = monotonic()
        patience = self.config.request_timeout
        waited_in_vain = begun_at - self._in_vain < patience
        if waited_in_vain:
            patience *= _SHORT_WAIT
        pause = FIRST_PAUSE_S
        while True:
            failure: NatsError | None = None
            try:
                yield from self.open(self.lanes.reopening)
            except NoLeader as error:
                failure = error
            except UnexpectedReply:
                raise
            except OutcomeUnknown as error:
                # Only the question for the leader has an unknown outcome: the requests themselves
                # were not applied.
                failure = NoLeader(f"Nobody answers for the stream: {error}")
                failure.__cause__ = error
            else:
                repeated = yield [requests[index] for index in missing]
                for index, answer in zip(missing, repeated, strict=True):
                    answers[index] = answer
                missing = without_stream(answers)
                if not missing:
                    return
            if monotonic() - begun_at >= patience:
                self._in_vain = monotonic()
                if not waited_in_vain:  # otherwise each call would log that, and the probe after it
                    self._suspend(requests[missing[0]].lane)
                for index in missing if failure is not None else ():
                    answers[index] = failure
                return
            pause = yield from _pause_for_leader(pause)

    def _require_leader(self) -> None:
        if self.lanes.writes.fault is not None:
            raise NotSent(self.lanes.writes.fault)

    def _suspend(self, lane: Lane) -> None:
        """Have the requests of a lane fail at once until a probe finds a leader."""
        # A question to the leader fails together with writes, which only the leader takes.
        lane = self.lanes.writes if lane is self.lanes.questions else lane
        self.server.suspend(lane, f"{lane.name}: the stream has no leader at the moment")


def _pause_for_leader(pause: float) -> Steps[float]:
    """Wait for about ``pause`` seconds, and return the pause before the next try."""
    yield Pause(_random.uniform(0.5, 1) * pause)
    return min(2 * pause, _LAST_PAUSE_S)
