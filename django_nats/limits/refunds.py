"""Refunds of uses, each at most once.

Every use has a counter of its own for refunds, its marker. A refund first adds 1 to the marker.
Only the call whose addition makes it 1 then takes the use off what is used. The server adds in one
order, and keeps the marker until long after the period. So no two calls take the same use off,
whatever fails, and however late they come.

The two writes cannot be made one. If the process ends between them, or an answer does not come, the
marker may say that the use is refunded although it stays counted: the tenant has less than it
should, never more.

A reset takes all uses off that came before it. A counter keeps its place in the stream, so that
none of them is taken off once more.
"""

from __future__ import annotations

from ..client.counters.stream import CounterStream
from ..client.protocol.steps import Steps
from ..exceptions import CounterUnavailable


def refund(stream: CounterStream, counter: str, n: int, sequence: int, nonce: str) -> Steps[bool]:
    """Take a use off a counter, unless it was refunded or reset. Return True if it was taken off.

    ``sequence`` is that of the use, and ``nonce`` tells it from all others. Three round trips.
    """
    if (yield from stream.last_change(_reset_counter(counter))) > sequence:
        return False
    if (yield from stream.incr(f"{counter}.refunded.{nonce}", 1)) != 1:
        return False
    try:
        yield from stream.give_back(counter, n)
    except CounterUnavailable as error:
        raise CounterUnavailable(
            f"A refund has begun, and cannot be repeated. {n} may stay used: {error}",
            may_have_happened=True,
        ) from error
    return True


def reset(stream: CounterStream, counter: str) -> Steps[None]:
    """Let a counter begin again from 0, and let no earlier use be refunded."""
    yield from stream.reset(counter)
    yield from stream.incr(_reset_counter(counter), 1)


def _reset_counter(counter: str) -> str:
    return f"{counter}.reset"
