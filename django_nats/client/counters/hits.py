"""Hits of limits: increments for callers that wait for a short time, and then go on without them.

A hit carries no id and is not repeated once it may have been applied. One that gets no answer in
time may be counted, which errs on the side of the limit: it never lets more through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ...exceptions import NatsError, NotSent, ServerError, UnexpectedReply
from ...realtime import monotonic
from ..protocol import wire
from ..protocol.steps import Request, Steps, within
from ..protocol.wire import Reply
from ..streams.requests import raise_error
from .stream import CounterStream


class Window(NamedTuple):
    """A window of time: the counter of its hits, and that of the window before it."""

    stream: CounterStream
    counter: str
    """The counter's subject, without the stream's prefix."""
    previous: str | None
    """The same of the window before; None if its hits do not matter."""


Counts: TypeAlias = "tuple[int, int]"
"""The hits of a window, and those of the window before it; 0 if these do not matter."""


def ready(streams: Sequence[CounterStream]) -> Steps[None]:
    """Open the streams that this connection has not opened yet."""
    for each in streams:
        yield from each.stream.ready()


def hit(windows: Sequence[Window], cost: int, timeout: float) -> Steps[list[Counts | NatsError]]:
    """Add a cost to each window, and return its counts, all in one write to the socket.

    A window whose counts did not arrive has the error instead. All streams must be open, and on one
    connection. ``timeout`` is in seconds: what reached no stream is repeated for that long.
    """
    deadline = monotonic() + timeout
    requests: list[Request] = []
    for stream, counter, previous in windows:
        fault = stream.stream.lanes.writes.fault
        if fault is not None:
            return [NotSent(fault)] * len(windows)
        requests.append(_increment(stream, counter, cost))
        if previous is not None:
            requests.append(stream.messages.request(f"{stream.config.prefix}.{previous}"))
    try:
        answers = iter((yield requests))
    except NatsError as error:
        return [error] * len(windows)
    counts: list[Counts | NatsError] = []
    # Every answer is looked at, also after a failure: each may have been counted.
    for window in windows:
        own = next(answers)
        before = None if window.previous is None else next(answers)
        try:
            counts.append((yield from _counts(window, cost, own, before, deadline)))
        except ServerError as error:
            counts.append(window.stream.increments.refused(window.counter, error))
        except NatsError as error:
            counts.append(error)
    return counts


def give_back(windows: Sequence[Window], cost: int) -> None:
    """Take a cost off each window again, without waiting for that."""
    for stream, counter, _ in windows:
        stream.stream.post(_increment(stream, counter, -cost))


def peek(windows: Sequence[Window]) -> Steps[list[Counts]]:
    """Return the counts of windows, without adding to them. One round trip for each stream."""
    by_stream: dict[CounterStream, list[str]] = {}
    for stream, counter, previous in windows:
        by_stream.setdefault(stream, []).extend(filter(None, (counter, previous)))
    totals: dict[tuple[CounterStream, str | None], int] = {}
    for stream, counters in by_stream.items():
        for counter, total in (yield from stream.stored(counters)).items():
            totals[stream, counter] = total or 0
    return [
        (totals.get((stream, counter), 0), totals.get((stream, previous), 0))
        for stream, counter, previous in windows
    ]


def _increment(stream: CounterStream, counter: str, n: int) -> Request:
    header = b"NATS/1.0\r\nNats-Incr: %+d\r\n\r\n" % n
    return Request(stream.stream.lanes.writes, f"{stream.config.prefix}.{counter}", b"", header)


def _counts(
    window: Window,
    cost: int,
    own: Reply | NatsError,
    before: Reply | NatsError | None,
    deadline: float,
) -> Steps[Counts]:
    stream, counter, previous = window
    reply: Reply = raise_error(own)
    if wire.is_without_stream(reply):
        request = _increment(stream, counter, cost)
        reply = yield from within(deadline, stream.stream.insist(request, reply))
    counted = stream.increments.counted(reply)
    if counted is None:
        yield from stream.increments.acknowledged(reply)
        raise UnexpectedReply(f"The {stream.config.title} acknowledged a hit without a total")
    sequence, digits = counted
    stream.messages.remember(f"{stream.config.prefix}.{counter}".encode(), sequence)
    current = stream.totals.integer(counter, digits)
    if previous is None:
        return current, 0
    reply = raise_error(before)
    subject = f"{stream.config.prefix}.{previous}"
    if wire.is_without_stream(reply):
        question = stream.messages.request(subject)
        reply = yield from within(deadline, stream.stream.insist(question, reply))
    message = yield from within(deadline, stream.messages.read(subject, reply))
    return current, stream.totals.of(previous, message)
