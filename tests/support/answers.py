"""Replies of a server as bytes, and functions that run an operation's steps with them."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from time import time
from typing import Any

from django_nats.client.kv.bucket import Bucket
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.entry import Write
from django_nats.client.protocol import wire
from django_nats.client.protocol.server_errors import TOO_MANY_REQUESTS
from django_nats.client.protocol.steps import Lane, Pause, Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.client.streams.config import StreamConfig
from django_nats.exceptions import NatsError

HOUR = 3600
WRITE = Write(b"value", "json", 300)


class Session:
    """The part of a session that a bucket uses, without a connection."""

    epoch = 1
    connect_timeout = 60.0
    server = "nats-server 2.15.1"

    def __init__(self, max_payload: int = 1024 * 1024) -> None:
        self.max_payload = max_payload
        self.posted: list[Request] = []
        self.suspended: list[Lane] = []

    def post(self, *requests: Request) -> None:
        self.posted += requests

    @property
    def epoch_of_requests(self) -> int:
        return self.epoch

    def suspend(self, lane: Lane, fault: str) -> None:
        self.suspended.append(lane)


def stamp(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def document(content: dict[str, Any]) -> Reply:
    return Reply(b"", wire.compact_json(content))


def stream_info(config: BucketConfig, clock: float = 0) -> Reply:
    """Return the STREAM.INFO reply of a server whose clock is ``clock`` seconds ahead."""
    return document(stream_document(config, ts=stamp(time() + clock)))


def stream_document(
    config: StreamConfig, ts: str = "2030-01-01T00:00:00Z", **state: int
) -> dict[str, Any]:
    """Return the STREAM.INFO document of an empty stream, with ``state`` added to its state."""
    return {
        "config": config.stream_config(),
        "created": "2029-01-01T00:00:00Z",
        "state": {"last_seq": 0, "messages": 0, "bytes": 0, **state},
        "ts": ts,
    }


def opened(max_payload: int = 1024 * 1024, clock: float = 0, **options: Any) -> Bucket:
    config = BucketConfig("b", **{"request_timeout": 60.0, **options})
    bucket = Bucket(config, Session(max_payload))
    answer_all(bucket.stream.opening.open(), stream_info(config, clock))
    return bucket


def answer_all(steps: Steps[Any], answer: object) -> None:
    """Give an operation the same answer to every request.

    Opening a stream sends a second request if the first took long, as it may on a busy machine.
    """
    with suppress(StopIteration):
        next(steps)
        while True:
            steps.send(answer)


def unsuitable_document(config: StreamConfig) -> dict[str, Any]:
    """Return the STREAM.INFO document of a stream that cannot count."""
    document = stream_document(config)
    return {**document, "config": {**document["config"], "allow_msg_counter": False}}


class Clock:
    """A clock that moves only when a test sets ``now``."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def finish(steps: Steps[Any], *answers: object) -> tuple[Any, list[Any]]:
    """Run an operation with these answers. Return its result and the requests it sent.

    Answers that are errors are raised in the operation. Pauses end at once.
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


def run_until_error(
    clock: Clock, steps: Steps[Any], *answers: object
) -> tuple[NatsError, list[Any]]:
    """Run an operation until it raises. Return the error and the requests it sent.

    The last answer is repeated. Only the operation's pauses move the clock.
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
    raise AssertionError("the operation does not end")


def ack(sequence: int) -> Reply:
    return document({"stream": "KV_b", "seq": sequence})


def refusal(err_code: int) -> Reply:
    if err_code == TOO_MANY_REQUESTS:
        return too_many_requests("KV_b")
    error = {"code": 400, "err_code": err_code, "description": "because"}
    return document({"error": error, "stream": "KV_b", "seq": 0})


def too_many_requests(stream: str) -> Reply:
    """Return the refusal of a stream that has too much to do: the only one with a header."""
    error = {"code": 429, "err_code": TOO_MANY_REQUESTS, "description": "too many requests"}
    answer = document({"error": error, "stream": stream, "seq": 0})
    return Reply(b"NATS/1.0 429 Too Many Requests\r\n\r\n", answer.payload)


def stored(
    sequence: int,
    key: str = "=.1.k",
    payload: bytes = b"value",
    header: str = "Django-Nats: json\r\n",
    at: float | None = None,
) -> Reply:
    """Return the reply to a direct get."""
    when = stamp(time() if at is None else at)
    block = (
        f"NATS/1.0\r\n{header}Nats-Stream: KV_b\r\nNats-Subject: $KV.b.{key}\r\n"
        f"Nats-Sequence: {sequence}\r\nNats-Time-Stamp: {when}\r\n\r\n"
    )
    return Reply(block.encode(), payload)


def from_leader(sequence: int, identity: str = "", payload: bytes = b"value") -> Reply:
    """Return the reply to a STREAM.MSG.GET, which only the leader sends."""
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


def from_leader_with(sequence: int, line: str, at: float | None = None) -> Reply:
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
