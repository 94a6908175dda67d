"""Requests to a stream and their replies: opened first, again when it is gone, chunked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ..exceptions import NatsError, NotSent, OutcomeUnknown
from . import wire
from .opening import C, Opening
from .steps import Request, Steps
from .wire import Reply

T = TypeVar("T")

MAX_PIPELINE = 4096
"""Requests in one write."""
MAX_PIPELINE_BYTES = 16 * 1024 * 1024


class Exchange(Opening[C]):
    """What asks its stream."""

    def ask(self, request: Request) -> Steps[Reply]:
        """One request to an open stream; opened again when it turns out to be gone."""
        if not self.is_ready:
            yield from self.ready()
        reply = yield request
        return (yield from self._again(request)) if wire.is_without_stream(reply) else reply

    def _again(self, request: Request) -> Steps[Reply]:
        yield from self.open()
        reply: Reply = yield request
        return reply

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
    if type(answer) is list:
        answer = answer[-1]
    return type(answer) is Reply and wire.is_without_stream(answer)


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
