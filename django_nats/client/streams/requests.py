"""Lists of requests and their answers: in chunks of bounded size, each answered or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ...exceptions import NatsError, NotSent, OutcomeUnknown, UnexpectedReply
from ..protocol import wire
from ..protocol.steps import Publications, Request, Steps
from ..protocol.wire import Reply

T = TypeVar("T")

MAX_PIPELINE = 4096
"""Requests in one write."""
MAX_PIPELINE_BYTES = 16 * 1024 * 1024


def send_all(requests: list[Request] | Publications) -> Steps[list[Any]]:
    """Send requests in as few writes as their size allows, and return their answers or failures.

    Raises NotSent only if none of them was sent.
    """
    if isinstance(requests, Publications):
        payloads = requests.payloads
    else:
        payloads = [request.payload for request in requests]
    answers: list[Any] = []
    for chunk in in_chunks(payloads, MAX_PIPELINE, MAX_PIPELINE_BYTES, len):
        try:
            is_all = len(chunk) == len(requests)
            start, stop = len(answers), len(answers) + len(chunk)
            answers += yield requests if is_all else requests[start:stop]
        except NotSent as error:
            if not answers:
                raise
            # This chunk was not sent, but those before it were: the operation has begun.
            unknown = OutcomeUnknown(f"Only a part was sent: {error}")
            unknown.__cause__ = error
            answers += [unknown] * len(chunk)
    return answers


def begun(steps: Steps[T]) -> Steps[T]:
    """Run the rest of an operation that has begun: NotSent becomes OutcomeUnknown.

    What the operation did before has its effect, whether the rest is sent or not.
    """
    try:
        return (yield from steps)
    except NotSent as error:
        raise OutcomeUnknown(f"Only a part was done: {error}") from error


def raise_error(answer: Any) -> Any:
    """Return an answer from a list of answers. Raise it if it is an error."""
    if isinstance(answer, NatsError):
        raise answer
    return answer


def unanswered(answers: Sequence[Any]) -> list[int]:
    """Return the indices of the requests to which no answer came."""
    return [
        index
        for index, answer in enumerate(answers)
        if isinstance(answer, OutcomeUnknown) and not isinstance(answer, UnexpectedReply)
    ]


def without_stream(answers: Sequence[Any]) -> list[int]:
    """Return the indices of the requests that reached no stream, and so were not applied."""
    return [index for index, answer in enumerate(answers) if _is_without_stream(answer)]


def _is_without_stream(answer: Any) -> bool:
    if type(answer) is list:
        answer = answer[-1]
    return type(answer) is Reply and wire.is_without_stream(answer)


def in_chunks(
    items: list[T], most: int, most_bytes: int, size_of: Callable[[T], int]
) -> Iterator[list[T]]:
    """Yield the items in lists of at most ``most``.

    A list ends when the sizes of its items exceed ``most_bytes``: by one item at most.
    """
    if 0 < len(items) <= most and sum(map(size_of, items)) <= most_bytes:
        yield items
        return
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
