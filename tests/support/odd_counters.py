"""Counters that this package would not create, but that another program may create."""

from __future__ import annotations

import secrets

from django_nats.client import drivers
from django_nats.client.counters.digits import MAX_DIGITS
from django_nats.client.protocol import wire
from django_nats.client.protocol.steps import Request, Steps
from django_nats.counters import Counters

TOO_MANY_DIGITS = "9" * (MAX_DIGITS + 1)


def increment(counters: Counters, subject: bytes, digits: str) -> None:
    """Add to a counter, named by the bytes of its subject without the stream's prefix."""

    def steps() -> Steps[None]:
        stream = counters.stream
        header = wire.header_block({"Nats-Incr": f"+{digits}", "Nats-Msg-Id": secrets.token_hex()})
        request = Request(stream.stream.lanes.writes, "any", b"", header)
        request.subject = stream.config.prefix.encode() + b"." + subject
        yield from stream.stream.opening.ready()
        wire.parse_ack((yield request), stream.config.stream.encode())

    drivers.run(counters.session, steps())
