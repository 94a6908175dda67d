"""Requests to a bucket's stream and their replies: opened first, again when it is gone, chunked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from ..exceptions import NatsError, NotSent, OutcomeUnknown, ServerError
from . import wire
from .opening import CLOCK_REFRESH, Opening
from .steps import Request, Steps
from .wire import Reply

T = TypeVar("T")

MAX_PIPELINE = 4096
"""Requests in one write."""
MAX_PIPELINE_BYTES = 16 * 1024 * 1024


class Exchange(Opening):
    """The part of a bucket that asks."""

    def ask(self, request: Request) -> Steps[Reply]:
        """One request to an open bucket; opened again when it turns out to be gone."""
        yield from self.ready()
        if monotonic() > self._clock_due and self.writes.fault is None:
            reply = yield from self._ask_with_time(request)
        else:
            reply = yield request
        if wire.is_without_stream(reply):
            yield from self.open()
            reply = yield request
        return reply

    def _ask_with_time(self, request: Request) -> Steps[Reply]:
        """The request, and in the same write a question for the time on the server."""
        sent = monotonic()
        self._clock_due = sent + CLOCK_REFRESH
        reply, info = yield [request, self._info_request()]
        if isinstance(info, Reply):
            with suppress(ServerError):  # the stream may be gone: the request's own reply tells
                self._set_clock(info, sent)
        answer: Reply = raise_error(reply)
        return answer

    def pipeline(self, requests: list[Request]) -> Steps[list[Any]]:
        """Many requests in as few writes as their size allows, each answered or failed."""
        yield from self.ready()
        answers: list[Any] = []
        for chunk in in_chunks(
            requests, MAX_PIPELINE, MAX_PIPELINE_BYTES, lambda request: len(request.payload)
        ):
            try:
                answers += yield chunk
            except NotSent as error:
                if not answers:
                    raise
                # Not so for the operation: what went before this chunk has been sent.
                unknown = OutcomeUnknown(f"Only a part was sent: {error}")
                unknown.__cause__ = error
                answers += [unknown] * len(chunk)
        gone = [index for index, answer in enumerate(answers) if _is_without_stream(answer)]
        if gone:
            yield from self.open()
            for index, answer in zip(gone, (yield [requests[i] for i in gone]), strict=True):
                answers[index] = answer
        return answers


def begun(steps: Steps[T]) -> Steps[T]:
    """The rest of an operation that has begun: not to be sent is no longer to be without effect."""
    try:
        return (yield from steps)
    except NotSent as error:
        raise OutcomeUnknown(f"Only a part was done: {error}") from error


def raise_error(answer: Any) -> Any:
    if isinstance(answer, NatsError):
        raise answer
    return answer


def _is_without_stream(answer: Any) -> bool:
    if isinstance(answer, list):
        answer = answer[-1]
    return isinstance(answer, Reply) and wire.is_without_stream(answer)


def in_chunks(
    items: Iterable[T], most: int, most_bytes: int, size_of: Callable[[T], int]
) -> Iterator[list[T]]:
    """The items in lists of at most so many, begun anew once one has over so many bytes."""
    chunk: list[T] = []
    size = 0
    for item in items:
        if len(chunk) == most or size > most_bytes:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += size_of(item)
    if chunk:
        yield chunk
