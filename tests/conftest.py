"""Fixtures: a real server for the session, and a bucket for every test."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from hypothesis import settings

from django_nats import testrun
from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.protocol.steps import Steps
from django_nats.client.streams.config import NANOSECONDS
from django_nats.devserver import NatsServer
from django_nats.limits import declared
from tests.servers import eventually, request
from tests.support.ports import free_port

settings.register_profile("patient", deadline=None)  # a test may be slow on a busy machine
settings.load_profile("patient")


def flushers() -> list[threading.Thread]:
    """Return the threads that publish increments in the background."""
    return [each for each in threading.enumerate() if each.name == "django-nats-counters"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Drop the increments that a test has not published.

    Its flusher, which may wait for an hour, would still be there in other tests of the process.
    """
    result = yield
    write_behind = sys.modules.get("django_nats.counters.write_behind")
    if write_behind is not None and flushers():
        write_behind.discard()
        assert eventually(lambda: not flushers())
    return result


@pytest.fixture(scope="session", autouse=True)
def as_in_production() -> Iterator[None]:
    """Let this process, and those that tests start, not count as a test run of a project.

    Otherwise embedded servers would be private to this process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testrun, "_runs_tests", lambda: False)
        patch.delenv(testrun.VARIABLE, raising=False)
        yield


@pytest.fixture(autouse=True)
def only_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands and checks see only the limits that the test itself declares.

    Those of other tests' modules are imported when pytest collects them.
    """
    monkeypatch.setattr(declared, "_limits", WeakSet())


@pytest.fixture(scope="session")
def server() -> Iterator[NatsServer]:
    """Start the session's server. A test that stops or pauses a server takes ``own_server``."""
    with NatsServer() as running:
        keep_store_directory(running)
        yield running
        process.close()


def keep_store_directory(server: NatsServer) -> None:
    """Create a stream with file storage that stays for the session.

    When its last such stream is deleted, the server removes their common directory in the
    background, and may do so while it creates the next one.
    """
    answer = request(server, "$JS.API.STREAM.CREATE.kept", {"name": "kept", "subjects": ["kept"]})
    assert "config" in answer, answer


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    with NatsServer(port=free_port()) as running:
        yield running
        process.close()


MakeCache = Callable[..., NatsCache]
PATIENT = {"CONNECT_TIMEOUT": 30.0, "REQUEST_TIMEOUT": 30.0}
"""OPTIONS for calls that must succeed: timeouts in seconds that suffice on a busy machine."""


@pytest.fixture
def without_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep connections opened by the test from counting as lost when pings are not answered.

    Requests to a stopped server then end only by their timeout.
    """
    monkeypatch.setattr("django_nats.client.transport.connection.PING_INTERVAL_S", 60.0)


@pytest.fixture
def without_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep extra requests from being sent if the server is slow.

    They check the inbox of a connection, and ask for the server's time again.
    """
    monkeypatch.setattr("django_nats.client.transport.timeouts._DOUBT_S", 60.0)
    monkeypatch.setattr("django_nats.client.streams.clock._GOOD_ENOUGH_S", 60.0)


@pytest.fixture
def make_cache(server: NatsServer) -> Iterator[MakeCache]:
    """Yield a factory of caches on the test's own bucket, which is deleted afterwards.

    For example ``make_cache(KEY_PREFIX="x", OPTIONS={…}, on=another_server)``.
    """
    bucket = f"test_{secrets.token_hex(6)}"
    made: list[NatsCache] = []

    def make(*, on: NatsServer | None = None, location: object = None, **params: Any) -> NatsCache:
        running = on or server
        shared = on is None and location is None
        options = {
            "BUCKET": bucket,
            "TOKEN": running.token,
            **PATIENT,
            **params.pop("OPTIONS", {}),
        }
        cache = NatsCache(location or running.url, {**params, "OPTIONS": options})
        if shared:
            made.append(cache)
        return cache

    yield make
    for cache in made:
        if cache.near is not None:
            cache.near.stop()  # otherwise it would recreate the bucket to follow it
    for cache in {cache.bucket: cache for cache in made}.values():
        api(cache, f"STREAM.DELETE.KV_{cache.bucket.config.name}")


def api(cache: NatsCache, subject: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to the JetStream API and return the answer, which may be an error."""

    def steps() -> Steps[dict[str, Any]]:
        payload = b"" if document is None else json.dumps(document).encode()
        reply = yield cache.bucket.stream.api_request(f"$JS.API.{subject}", payload)
        return json.loads(reply.payload)

    return drivers.run(cache.session, steps())


def lasting_consumer(stream: str) -> dict[str, Any]:
    """Return the API request for a consumer called "taken", which is kept though nobody uses it.

    By default, the server would delete it after five seconds.
    """
    hour = 3600 * NANOSECONDS
    config = {"name": "taken", "ack_policy": "none", "inactive_threshold": hour}
    return {"stream_name": stream, "config": config}


@pytest.fixture
def cache(make_cache: MakeCache) -> NatsCache:
    return make_cache()
