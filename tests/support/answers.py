"""What a server answers, as bytes, and a driver that gives it to an operation."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from time import time
from typing import Any

from django_nats.client import wire
from django_nats.client.bucket import BucketConfig
from django_nats.client.entry import Write
from django_nats.client.kv import Bucket
from django_nats.client.steps import Pause, Request, Steps
from django_nats.client.wire import Reply
from django_nats.exceptions import NatsError

HOUR = 3600
WRITE = Write(b"value", "json", 300)


class Session:
    """What a bucket sees of its session."""

    epoch = 1
    server = "nats-server 2.15.1"

    def __init__(self, max_payload: int = 1024 * 1024) -> None:
        self.max_payload = max_payload
        self.posted: list[Request] = []

    def post(self, request: Request) -> None:
        self.posted.append(request)


def stamp(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def document(content: dict[str, Any]) -> Reply:
    return Reply(b"", wire.compact_json(content))


def stream_info(config: BucketConfig, clock: float = 0) -> Reply:
    """STREAM.INFO of a server whose clock is so many seconds ahead."""
    return document({"config": config.stream_config(), "state": {}, "ts": stamp(time() + clock)})


def opened(max_payload: int = 1024 * 1024, clock: float = 0, **options: Any) -> Bucket:
    config = BucketConfig("b", **{"request_timeout": 0.05, **options})
    bucket = Bucket(config, Session(max_payload))
    finish(bucket.open(), stream_info(config, clock))
    return bucket


class Clock:
    """A clock that stands still unless it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def finish(steps: Steps[Any], *answers: object) -> tuple[Any, list[Any]]:
    """Give an operation its answers, errors among them; its result, and what it asked for.

    Pauses pass at once, and are not in what it asked for.
    """
    asked = []
    remaining = list(answers)
    try:
        effect = next(steps)
        while True:
            if isinstance(effect, Pause):
                effect = steps.send(None)
                continue
            asked.append(effect)
            answer = remaining.pop(0)
            effect = steps.throw(answer) if isinstance(answer, NatsError) else steps.send(answer)
    except StopIteration as end:
        assert not remaining
        return end.value, asked


def until_it_gives_up(
    clock: Clock, steps: Steps[Any], *answers: object
) -> tuple[NatsError, list[Any]]:
    """What an operation raises that gets the last answer for ever, and all that it has sent.

    Only its pauses take time.
    """
    asked = []
    remaining = list(answers)
    try:
        effect = next(steps)
        for _ in range(10_000):
            if isinstance(effect, Pause):
                clock.now += effect.seconds
                effect = steps.send(None)
                continue
            asked.append(effect)
            answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            effect = steps.throw(answer) if isinstance(answer, NatsError) else steps.send(answer)
    except NatsError as error:
        return error, asked
    raise AssertionError("it does not give up")


def ack(sequence: int) -> Reply:
    return document({"stream": "KV_b", "seq": sequence})


def refusal(err_code: int) -> Reply:
    error = {"code": 400, "err_code": err_code, "description": "because"}
    return document({"error": error, "stream": "KV_b", "seq": 0})


def stored(
    sequence: int,
    key: str = "=.1.k",
    payload: bytes = b"value",
    header: str = "Django-Nats: json\r\n",
    at: float | None = None,
) -> Reply:
    """A direct get's reply."""
    when = stamp(time() if at is None else at)
    block = (
        f"NATS/1.0\r\n{header}Nats-Stream: KV_b\r\nNats-Subject: $KV.b.{key}\r\n"
        f"Nats-Sequence: {sequence}\r\nNats-Time-Stamp: {when}\r\n\r\n"
    )
    return Reply(block.encode(), payload)


def leaders(sequence: int, identity: str = "", payload: bytes = b"value") -> Reply:
    """A STREAM.MSG.GET's reply."""
    header = wire.header_block({"Django-Nats": "json", "Nats-Msg-Id": identity})
    message = {
        "subject": "$KV.b.=.1.k",
        "seq": sequence,
        "hdrs": base64.b64encode(header).decode(),
        "data": base64.b64encode(payload).decode(),
        "time": stamp(time()),
    }
    return document({"message": message})


MISSING = Reply(b"NATS/1.0 404 Message Not Found\r\n\r\n", b"")
NO_MESSAGE = document({"error": {"code": 404, "err_code": 10037, "description": "none"}})


def identity_of(request: Request) -> str:
    identity = wire.field(request.header, "Nats-Msg-Id")
    assert identity
    return identity


def leaders_with(sequence: int, line: str, at: float | None = None) -> Reply:
    block = f"NATS/1.0\r\n{line}\r\n\r\n".encode()
    message = {
        "subject": "$KV.b.=.1.k",
        "seq": sequence,
        "hdrs": base64.b64encode(block).decode(),
        "time": stamp(time() if at is None else at),
    }
    return document({"message": message})


def batch(*messages: Reply, pending: int = 0) -> list[Reply]:
    end = f"NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\n\r\n".encode()
    return [*messages, Reply(end, b"")]
