"""A counter stream without a server, and replies of a server to it, as bytes."""

from __future__ import annotations

import base64
import json
from typing import Any

from django_nats.client.counters.config import CounterConfig
from django_nats.client.counters.stream import CounterStream
from django_nats.client.protocol.server_errors import TOO_MANY_REQUESTS
from django_nats.client.protocol.wire import Reply
from tests.support.answers import Session, document, finish, stream_document, too_many_requests


def opened(last_seq: int = 0, **options: Any) -> CounterStream:
    """Return a stream that has been found on the server."""
    config = CounterConfig("C", "c", **options)
    stream = CounterStream(config, Session())
    finish(stream.stream.opening.open(), info(config, last_seq))
    return stream


def info(config: CounterConfig, last_seq: int = 0) -> Reply:
    return document(stream_document(config, last_seq=last_seq))


def ack(sequence: int, total: int) -> Reply:
    return Reply(b"", b'{"stream":"C","seq":%d,"val":"%d"}' % (sequence, total))


def duplicate(sequence: int) -> Reply:
    return Reply(b"", b'{"stream":"C","seq":%d,"duplicate": true}' % sequence)


def refusal(err_code: int, code: int = 400) -> Reply:
    if err_code == TOO_MANY_REQUESTS:
        return too_many_requests("C")
    error = {"code": code, "err_code": err_code, "description": "because"}
    return document({"error": error, "stream": "C", "seq": 0})


NO_RESPONDERS = Reply(b"NATS/1.0 503\r\n\r\n", b"")


def stored(
    sequence: int, total: object, counter: str = "k", header: str = "", payload: bytes = b""
) -> Reply:
    """Return the reply to a direct get."""
    block = (
        f"NATS/1.0\r\nNats-Incr: +1\r\n{header}Nats-Stream: C\r\nNats-Subject: c.{counter}\r\n"
        f"Nats-Sequence: {sequence}\r\nNats-Time-Stamp: 2030-01-01T00:00:00Z\r\n\r\n"
    )
    return Reply(block.encode(), payload or json.dumps({"val": str(total)}).encode())


def from_leader(sequence: int, total: object, counter: str = "k") -> Reply:
    """Return the reply to a STREAM.MSG.GET, which only the leader sends."""
    data = json.dumps({"val": str(total)}, separators=(",", ":")).encode()
    message = {
        "subject": f"c.{counter}",
        "seq": sequence,
        "hdrs": base64.b64encode(b"NATS/1.0\r\nNats-Incr: +1\r\n\r\n").decode(),
        "data": base64.b64encode(data).decode(),
        "time": "2030-01-01T00:00:00Z",
    }
    return document({"message": message})
