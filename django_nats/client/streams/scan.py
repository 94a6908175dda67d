"""Reading the last messages of a stream in batches, however many there are."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ...exceptions import LimitReached, NoLeader, NotSent, ServerError, UnexpectedReply
from ..protocol import documents, wire
from ..protocol.steps import Item, ItemSteps, Request, Steps, next_item
from ..protocol.wire import Reply
from .config import NANOSECONDS
from .delivered import DeliveredReader, Run, is_ack
from .stream import Stream

FIRST_BATCH = 100  # small, so that the first message comes at once
BATCH = 1000
_IDLE_S = 30
"""Between two batches, before the server deletes a consumer. A reader that takes longer, or loses
its connection, goes on with another consumer."""
_ENDS = (0, 404, 408)  # a whole batch, no message left, or none at the moment


class Delivered(NamedTuple):
    """A message that a consumer delivered."""

    reply: Reply
    sequence: int
    stored: float
    """Seconds since 1970."""


# What named tuples do themselves, without the function that first collects the fields.
_delivered: Callable[[tuple[Reply, int, float]], Delivered] = partial(tuple.__new__, Delivered)


class Batch(NamedTuple):
    """Messages that a consumer delivered together: each is in one of the two lists."""

    delivered: list[Delivered]
    decoded: list[Any]
    """What ``decode`` has returned for runs of messages."""


def last_messages(
    stream: Stream[Any], subject_filter: str, *, batch: int = BATCH, headers_only: bool = False
) -> ItemSteps[list[Delivered]]:
    """Yield lists of the last messages of all subjects that match a filter: see ``batches``."""
    found = batches(stream, subject_filter, batch=batch, headers_only=headers_only)
    try:
        while (item := (yield from next_item(found))) is not None:
            yield Item(item.value.delivered)
    finally:
        found.close()


def batches(
    stream: Stream[Any],
    subject_filter: str,
    *,
    batch: int = BATCH,
    headers_only: bool = False,
    decode: Callable[[Run], object] | None = None,
) -> ItemSteps[Batch]:
    """Yield batches of the last messages of all subjects that match a filter.

    With ``decode``, most messages are decoded in runs: see DeliveredReader. The filter then ends
    with ``>``, and there are no payloads (``headers_only``).

    Memory stays at one batch. Messages that are stored meanwhile may or may not be delivered.
    Raises NoLeader if the server has lost two consumers without a message in between, and
    UnexpectedReply if a message does not match the filter, or is not this consumer's.
    """
    matches = subject_matcher(subject_filter)
    last, lost = 0, -1
    yield from stream.opening.ready()
    size = min(FIRST_BATCH, batch)
    while True:
        name = f"keys-{secrets.token_hex(8)}"
        place = f"{stream.config.stream}.{name}.".encode()
        delete = Request(stream.lanes.writes, stream.api.delete_consumer(name))
        create = _creation(stream, name, subject_filter, headers_only)
        left = yield from _created(stream, name, create, delete)
        known = last
        try:
            while left:
                reader = decode and DeliveredReader(decode, subject_filter, place, known)
                replies = yield from _next_batch(stream, name, size, reader)
                if replies is None:
                    break
                delivered = []
                still = b"0"
                for reply in replies:
                    sequence, _, stored, still = _numbers_of(reply, place)
                    if not matches(reply.subject):
                        raise UnexpectedReply(
                            f"The {stream.config.title} was asked for {subject_filter}, and "
                            "delivered a message of another subject"
                        )
                    # Messages come in the order in which they were stored. Those up to the last one
                    # were delivered by a consumer that was lost.
                    if sequence > last:
                        delivered.append(_delivered((reply, sequence, stored / NANOSECONDS)))
                size, left = batch, int(still)
                if delivered:
                    last = delivered[-1].sequence
                decoded: list[Any] = []
                if reader is not None:
                    last = max(last, reader.last)
                    decoded = reader.decoded
                if delivered or decoded:
                    yield Item(Batch(delivered, decoded))
            else:
                return
        finally:
            # Without waiting: a generator that is being closed cannot wait for an answer.
            stream.post(delete)
        if last == lost:
            raise NoLeader("The listing was lost with the server that held it")
        lost = last


def _created(stream: Stream[Any], name: str, create: Request, delete: Request) -> Steps[int]:
    """Create a consumer, and return how many messages it has to deliver."""
    try:
        reply = yield from stream.ask(create)
        document = wire.parse_api(reply, documents.CONSUMER)
        if document.get("name", name) != name:
            raise UnexpectedReply(f"The server answered about a consumer other than {name}")
        return int(document.get("num_pending", 0))
    except (NotSent, ServerError):
        raise
    except BaseException:
        # It may be created all the same, and in a cluster after a deletion that was sent later.
        # So it is created again: once that is answered, it is certain to exist, and is deleted.
        stream.post(create, delete)
        raise


def _creation(stream: Stream[Any], name: str, subject_filter: str, headers_only: bool) -> Request:
    config = {
        "name": name,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "headers_only": headers_only,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _IDLE_S * NANOSECONDS,
        "filter_subject": subject_filter,
    }
    payload = wire.compact_json({"stream_name": stream.config.stream, "config": config})
    return Request(stream.lanes.writes, stream.api.create_consumer(name), payload)


def _next_batch(
    stream: Stream[Any], consumer: str, size: int, reader: DeliveredReader[Any] | None
) -> Steps[list[Reply] | None]:
    """Return the next messages of a consumer, or None if the server no longer has the consumer.

    Those that the reader takes are not among them.
    """
    request = Request(
        stream.lanes.writes,
        stream.api.next_messages(consumer),
        wire.compact_json({"batch": size, "no_wait": True}),
        gather=size,
        inbox=True,
        reader=reader,
    )
    had_notices = stream.opening.has_notices
    try:
        replies: list[Reply] = yield request
    except LimitReached:
        # The server may have had one subscription left, and the notices may have taken it. They
        # have made room, but a part of the batch may have been delivered to nobody.
        if stream.opening.has_notices or not had_notices:
            raise
        return None
    ended = wire.status(replies[-1])
    if ended == wire.ODD_STATUS:
        raise wire.status_error(ended, replies[-1].header)
    if ended not in _ENDS:
        return None
    return replies[:-1] if ended else replies  # a status is always the last reply


class Delivery(NamedTuple):
    """What the reply subject of a delivered message says about it."""

    sequence: int
    number: int
    """Its number among all messages that the consumer has delivered."""
    stored: float
    """Seconds since 1970."""
    left: int
    """How many messages the consumer still has to deliver."""


def delivery_of(reply: Reply, place: bytes) -> Delivery:
    """Return what the server says about a delivered message.

    ``place`` is the consumer's stream and name, each with a dot after it. Raises UnexpectedReply
    if the message was not delivered by that consumer.
    """
    sequence, number, stored, left = _numbers_of(reply, place)
    return Delivery(sequence, int(number), stored / NANOSECONDS, int(left))


def _numbers_of(reply: Reply, place: bytes) -> tuple[int, bytes, int, bytes]:
    """Return the numbers of a Delivery. Those that not all callers need stay text."""
    # $JS.ACK[.<domain>.<account>].<stream>.<consumer>.<deliveries>.<seq>.<seq>.<ns>.<pending>[.<x>]
    head, _, tail = reply.reply_to.partition(place)
    numbers = _NUMBERS.fullmatch(tail)
    # The same prefix for every message of a batch, but for one from another JetStream domain.
    if numbers is not None and is_ack(head):
        first, number, third, left = numbers.groups()
        sequence, stored = int(first), int(third)
        if sequence < _MOST and stored < _MOST:
            return sequence, number, stored, left
    raise UnexpectedReply(
        f"A message of the consumer {place.decode()[:-1]} has a subject for its reply that is not "
        "one of this consumer's"
    )


_MOST = 1 << 63
_NUMBERS = re.compile(
    rb"[0-9]{1,19}\.([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})(?:\.[^.]+)?"
)


def subject_matcher(subject_filter: str) -> Callable[[bytes], object]:
    """Return a function that returns a true value if a subject matches a filter."""
    head, star, tail = subject_filter.partition(">")
    if star and not tail and "*" not in head:
        start = head.encode()
        return lambda subject: subject.startswith(start) and len(subject) > len(start)
    tokens = {"*": r"[^.]+", ">": r".+"}
    regex = r"\.".join(tokens.get(each, re.escape(each)) for each in subject_filter.split("."))
    return re.compile(regex.encode(), re.DOTALL).fullmatch
