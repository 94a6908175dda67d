"""A real server for the session, a bucket for every test."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from django_nats.cache import NatsCache
from django_nats.client import bridge
from django_nats.client.steps import Steps
from django_nats.devserver import NatsServer
from tests.support.ports import free_port

settings.register_profile("patient", deadline=None)  # a busy machine is no slow code
settings.load_profile("patient")


@pytest.fixture(scope="session")
def server() -> Iterator[NatsServer]:
    """The session's server. A test that stops or pauses one takes ``own_server``."""
    with NatsServer() as running:
        yield running
        bridge.close()


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    with NatsServer(port=free_port()) as running:
        yield running
        bridge.close()


MakeCache = Callable[..., NatsCache]
PATIENT = {"CONNECT_TIMEOUT": 10.0, "REQUEST_TIMEOUT": 10.0}
"""OPTIONS on the session's server: nobody stops it, and a busy machine is no outage."""


@pytest.fixture
def without_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are opened now do not count as lost when pings have no answer: a timeout
    alone ends what a stopped server is asked."""
    monkeypatch.setattr("django_nats.client.connection.PING_INTERVAL", 60.0)


@pytest.fixture
def make_cache(server: NatsServer) -> Iterator[MakeCache]:
    """Makes caches on a bucket of the test's own, which goes with the test.

    ``make_cache(KEY_PREFIX="x", OPTIONS={…}, on=another_server)``
    """
    bucket = f"test_{secrets.token_hex(6)}"
    made: list[NatsCache] = []

    def make(*, on: NatsServer | None = None, location: object = None, **params: Any) -> NatsCache:
        running = on or server
        shared = on is None and location is None
        options = {
            "BUCKET": bucket,
            "TOKEN": running.token,
            **(PATIENT if shared else {}),
            **params.pop("OPTIONS", {}),
        }
        cache = NatsCache(location or running.url, {**params, "OPTIONS": options})
        if shared:
            made.append(cache)
        return cache

    yield make
    for cache in made:
        if cache.near is not None:
            cache.near.stop()  # or it would make the bucket again, to follow it
    for cache in {cache._bucket: cache for cache in made}.values():
        api(cache, f"STREAM.DELETE.KV_{cache._bucket.config.name}")


def api(cache: NatsCache, subject: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of the server's JetStream API, errors included."""

    def steps() -> Steps[dict[str, Any]]:
        payload = b"" if document is None else json.dumps(document).encode()
        reply = yield cache._bucket.api_request(f"$JS.API.{subject}", payload)
        return json.loads(reply.payload)

    return bridge.run(cache.session, steps())


@pytest.fixture
def cache(make_cache: MakeCache) -> NatsCache:
    return make_cache()
