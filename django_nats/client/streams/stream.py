"""One JetStream stream, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Generic

from ...exceptions import NatsError, NoLeader, NotSent, OutcomeUnknown, UnexpectedReply
from ...realtime import monotonic
from ..protocol import wire
from ..protocol.steps import Publications, Request, Steps
from ..protocol.wire import Reply
from .opening import FIRST_PAUSE_S, C, Opening, pause_for_leader
from .requests import raise_error, send_all, unanswered, without_stream

_SHORT_WAIT = 0.05
"""The part of REQUEST_TIMEOUT that calls wait for a leader soon after a call waited in vain."""


class Stream(Generic[C]):
    """One stream, as seen by this process.

    Every request goes by ``ask`` or ``pipeline``, which open the stream if necessary, and wait for
    a leader if it has none.
    """

    def __init__(self, opening: Opening[C]) -> None:
        """Take what opens the stream, and open nothing yet."""
        self.opening = opening
        self.config = opening.config
        self.server = opening.server
        self.recent = opening.recent
        self.api = opening.api
        self.lanes = opening.lanes
        self._in_vain = -math.inf
        """When a call last waited for a leader in vain, by the monotonic clock."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.stream}>"

    def ask(self, request: Request) -> Steps[Reply]:
        """Open the stream if necessary, send one request, and return its reply.

        If the request reached no stream, look for the stream, and repeat the request for at most
        REQUEST_TIMEOUT.
        """
        opening = self.opening
        if not opening.is_ready:
            yield from opening.ready()
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
        yield from self.opening.ready()
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
            self.lanes.require_leader()
            try:
                return (yield from self.ask(request))
            except UnexpectedReply:
                raise
            except OutcomeUnknown:
                if monotonic() >= deadline:
                    self.lanes.suspend(self.lanes.questions)
                    raise

    def pipeline_to_leader(self, requests: list[Request]) -> Steps[list[Any]]:
        """Send many questions as ``ask_leader`` sends one. Return each answer, or its failure."""
        deadline = monotonic() + self.config.request_timeout
        answers: list[Any] = [None] * len(requests)
        missing = list(range(len(requests)))
        while True:
            self.lanes.require_leader()
            asked = yield from self.pipeline([requests[index] for index in missing])
            for index, answer in zip(missing, asked, strict=True):
                answers[index] = answer
            missing = unanswered(answers)
            if not missing:
                return answers
            if monotonic() >= deadline:
                self.lanes.suspend(self.lanes.questions)
                return answers

    def api_request(self, subject: str, payload: bytes = b"") -> Request:
        """Return a request to the JetStream API, which may take longer than one for a value."""
        return Request(self.lanes.api, subject, payload)

    def post(self, *requests: Request) -> None:
        """Send requests, each after the answer to the one before, without waiting for any.

        A generator that is being closed can still do this.
        """
        self.server.post(*requests)

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
                yield from self.opening.open(self.lanes.reopening)
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
                    self.lanes.suspend(requests[missing[0]].lane)
                for index in missing if failure is not None else ():
                    answers[index] = failure
                return
            pause = yield from pause_for_leader(pause)
