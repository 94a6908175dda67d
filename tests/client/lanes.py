"""Requests on lanes, and services that answer them or do not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from nats.aio.client import Client

from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.session import Session
from django_nats.devserver import NatsServer
from django_nats.devserver.files import eventually
from tests.support.answers import Clock

TIMEOUT = 1.0
PATIENT = Lane("a patient lane", 60.0)  # for requests that are answered


def asking(lane: Lane, subject: str, payload: bytes = b"", **kwargs: Any) -> Steps[Any]:
    return (yield Request(lane, subject, payload, **kwargs))


def session_of(server: NatsServer, **options: Any) -> Session:
    """Return a session whose connect timeout is long enough for a slow machine."""
    return process.session(ConnectionConfig((server.url,), **{"connect_timeout": 30.0, **options}))


async def listen(
    service: Client, subject: str, answer: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    """Subscribe, and wait until the server has the subscription."""
    await service.subscribe(subject, cb=answer)
    # nats-py's first ping may overtake the subscription.
    await service.flush()
    await service.flush()


async def ask(session: Session, lane: Lane, subject: str, payload: bytes = b"") -> Reply:
    return await drivers.arun(session, asking(lane, subject, payload))


async def ignore(message: Any) -> None:
    """Receive a message without answering it."""


async def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    return await asyncio.get_running_loop().run_in_executor(None, eventually, condition, deadline)


async def time_out(session: Session, clock: Clock, timeout: float = TIMEOUT) -> None:
    """Let a timeout pass. The server answers another request in its second half."""
    clock.now += 0.6 * timeout
    await ask(session, PATIENT, "nobody")
    clock.now += 0.45 * timeout
