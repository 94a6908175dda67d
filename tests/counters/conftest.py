"""Aliases of NATS_COUNTERS on the session's server, each with a stream of the test's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import bridge
from django_nats.client.steps import Lane, Request, Steps
from django_nats.client.wire import parse_api
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT
from tests.servers import request

Configure = Callable[..., Counters]


@pytest.fixture
def configure(server: NatsServer) -> Iterator[Configure]:
    """Sets an alias up: ``configure("eu", REPLICAS=1, on=another_server)``; its collection."""
    overrides: list[Any] = []
    aliases: dict[str, dict[str, object]] = {}
    made: list[tuple[Any, str]] = []
    name = secrets.token_hex(4)

    def set_up(
        alias: str = "default", *, on: NatsServer | None = None, **options: object
    ) -> Counters:
        running = on or server
        shared = on is None and "LOCATION" not in options
        patient = PATIENT if shared and "DEADLINE" not in options else {}
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
        bridge.run(session, _deleted(stream))


def _deleted(stream: str) -> Steps[None]:
    yield Request(Lane("a test's own", 5), f"$JS.API.STREAM.DELETE.{stream}")


@pytest.fixture
def counters(configure: Configure, server: NatsServer) -> Counters:
    """The default alias's."""
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    return configure()


def api_level(server: NatsServer) -> int:
    api: Any = request(server, "$JS.API.INFO")["api"]
    return int(api.get("level", 0))


def stream_info(counters: Counters) -> dict[str, Any]:
    """STREAM.INFO of an alias's stream, once it is there."""

    def steps() -> Steps[dict[str, Any]]:
        yield from counters.stream.ready()
        reply = yield counters.stream.api_request(
            f"$JS.API.STREAM.INFO.{counters.settings.stream.stream}"
        )
        return parse_api(reply)

    return bridge.run(counters.session, steps())
