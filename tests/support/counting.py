"""A counter stream without a server, and what a server answers to it, as bytes."""

from __future__ import annotations

import base64
import json
from time import monotonic, sleep
from typing import Any

from django_nats.client.counterconfig import CounterConfig
from django_nats.client.counters import CounterStream
from django_nats.client.steps import Pause, Request, Steps
from django_nats.client.wire import Reply
from django_nats.exceptions import NatsError
from tests.support.answers import Session, document, finish


def opened(last_seq: int = 0, **options: Any) -> CounterStream:
    """A stream that has been found on the server."""
    config = CounterConfig("C", "c", **{"deadline": 0.3, "request_timeout": 0.05, **options})
    stream = CounterStream(config, Session())
    finish(stream.open(), info(config, last_seq))
    return stream


def info(config: CounterConfig, last_seq: int = 0) -> Reply:
    return document({"config": config.stream_config(), "state": {"last_seq": last_seq}})


def ack(sequence: int, total: int) -> Reply:
    return Reply(b"", b'{"stream":"C","seq":%d,"val":"%d"}' % (sequence, total))


def duplicate(sequence: int) -> Reply:
    return Reply(b"", b'{"stream":"C","seq":%d,"duplicate": true}' % sequence)


def refusal(err_code: int, code: int = 400) -> Reply:
    error = {"code": code, "err_code": err_code, "description": "because"}
    return document({"error": error, "stream": "C", "seq": 0})


NOBODY = Reply(b"NATS/1.0 503\r\n\r\n", b"")


def stored(
    sequence: int, total: object, counter: str = "k", header: str = "", payload: bytes = b""
) -> Reply:
    """A direct get's reply."""
    block = (
        f"NATS/1.0\r\nNats-Incr: +1\r\n{header}Nats-Stream: C\r\nNats-Subject: c.{counter}\r\n"
        f"Nats-Sequence: {sequence}\r\nNats-Time-Stamp: 2030-01-01T00:00:00Z\r\n\r\n"
    )
    return Reply(block.encode(), payload or json.dumps({"val": str(total)}).encode())


def leaders(sequence: int, total: object, counter: str = "k") -> Reply:
    """A STREAM.MSG.GET's reply."""
    data = json.dumps({"val": str(total)}, separators=(",", ":")).encode()
    message = {
        "subject": f"c.{counter}",
        "seq": sequence,
        "hdrs": base64.b64encode(b"NATS/1.0\r\nNats-Incr: +1\r\n\r\n").decode(),
        "data": base64.b64encode(data).decode(),
        "time": "2030-01-01T00:00:00Z",
    }
    return document({"message": message})


def until_it_gives_up(steps: Steps[Any], *answers: object) -> tuple[NatsError, list[Request]]:
    """What an operation raises that gets the last answer for ever, and all that it has sent."""
    remaining, asked = list(answers), []
    until = monotonic() + 5
    try:
        effect = next(steps)
        while monotonic() < until:
            if isinstance(effect, Pause):
                sleep(effect.seconds)
                effect = steps.send(None)
                continue
            asked.append(effect)
            answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            effect = steps.throw(answer) if isinstance(answer, NatsError) else steps.send(answer)
    except NatsError as error:
        return error, asked
    raise AssertionError("it does not give up")
