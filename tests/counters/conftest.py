"""Fixtures: aliases of NATS_COUNTERS on the session's server, each with its own stream."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import drivers
from django_nats.client.protocol.steps import Lane, Request, Steps
from django_nats.client.protocol.wire import parse_api
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from tests.servers import request
from tests.support.operations import COUNTER, COUNTERS, Call

Configure = Callable[..., Counters]
PATIENT = {"CONNECT_TIMEOUT": 30.0, "REQUEST_TIMEOUT": 10.0}
"""Timeouts in seconds for calls that must succeed, as long as DEADLINE, even on a busy machine."""


def operations(chosen: Callable[[Call], bool] = lambda call: True) -> list[Any]:
    """Return rows of the table of operations, each with the class that it is called on."""
    return [
        pytest.param(kind, call, id=f"{kind.__name__}.{name}")
        for kind, calls in ((Counter, COUNTER), (Counters, COUNTERS))
        for name, call in calls.items()
        if chosen(call)
    ]


OPERATIONS = operations()
ASKING = operations(lambda call: call.asks)
WITH_A_TWIN = operations(lambda call: call.twin)


def host_of(kind: type[Counter] | type[Counters]) -> Counter | Counters:
    """Return what a row is called on: the counter ``k``, or the collection."""
    return Counter("k") if kind is Counter else Counters()


@pytest.fixture
def configure(server: NatsServer) -> Iterator[Configure]:
    """Return a function that sets up an alias and returns its Counters.

    For example ``configure("eu", REPLICAS=1, on=another_server)``.
    """
    overrides: list[Any] = []
    aliases: dict[str, dict[str, object]] = {}
    made: list[tuple[Any, str]] = []
    name = secrets.token_hex(4)

    def set_up(
        alias: str = "default", *, on: NatsServer | None = None, **options: object
    ) -> Counters:
        running = on or server
        shared = on is None and "LOCATION" not in options
        deadline: Any = options.get("DEADLINE", PATIENT["REQUEST_TIMEOUT"])
        patient = {**PATIENT, "REQUEST_TIMEOUT": min(PATIENT["REQUEST_TIMEOUT"], deadline)}
        aliases[alias] = {
            "LOCATION": running.url,
            "TOKEN": running.token,
            "STREAM": f"test_{name}_{alias}",
            "STORAGE": "memory",
            **patient,
            **options,
        }
        overrides.append(override_settings(NATS_COUNTERS=dict(aliases)))
        overrides[-1].enable()
        counters = Counters(alias)
        if shared:
            made.append((counters.session, counters.settings.stream.stream))
        return counters

    yield set_up
    for override in reversed(overrides):
        override.disable()
    for session, stream in made:
        drivers.run(session, _delete(stream))


def _delete(stream: str) -> Steps[None]:
    yield Request(Lane("a test's own", 5), f"$JS.API.STREAM.DELETE.{stream}")


@pytest.fixture
def counters(configure: Configure, server: NatsServer) -> Counters:
    """Return the Counters of the default alias."""
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    return configure()


def fill(counters: Counters, part: float) -> None:
    """Count under new names until a part of MAX_BYTES is used."""
    limit = counters.settings.stream.max_bytes
    assert limit is not None
    counters.incr("fill.first")
    while (missing := part * limit - stream_info(counters)["state"]["bytes"]) > 0:
        size = stream_info(counters)["state"]["bytes"] / stream_info(counters)["state"]["messages"]
        for _ in range(max(1, int(missing / size / 2))):
            counters.incr_later(f"fill.{secrets.token_hex(4)}")
        counters.flush()


def api_level(server: NatsServer) -> int:
    api: Any = request(server, "$JS.API.INFO")["api"]
    return int(api.get("level", 0))


def stream_info(counters: Counters) -> dict[str, Any]:
    """Open an alias's stream and return its STREAM.INFO."""

    def steps() -> Steps[dict[str, Any]]:
        yield from counters.stream.stream.opening.ready()
        reply = yield counters.stream.stream.api_request(
            f"$JS.API.STREAM.INFO.{counters.settings.stream.stream}"
        )
        return parse_api(reply)

    return drivers.run(counters.session, steps())
