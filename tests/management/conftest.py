"""Fixtures for the tests of commands: the test's own counters, and the command itself."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_nats.cache import nats_caches
from django_nats.client import drivers
from django_nats.client.protocol.steps import Steps
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import Limit
from tests.conftest import PATIENT, api
from tests.counters.conftest import configure, counters
from tests.management.buckets import DEAD

__all__ = ["configure", "counters"]

Nats = Callable[..., str]
Declare = Callable[..., Limit]
ConfigureCaches = Callable[..., None]


@pytest.fixture
def configure_caches(settings: Any, server: NatsServer) -> Iterator[ConfigureCaches]:
    """Yield a function that sets CACHES, with a bucket for each alias.

    For example ``configure_caches(default={"MAX_BYTES": 1}, other={…})``. A LOCATION among the
    options names another server.
    """
    buckets = f"test_{secrets.token_hex(4)}"

    def set_up(**aliases: dict[str, Any]) -> None:
        settings.CACHES = {
            alias: {
                "BACKEND": "django_nats.cache.NatsCache",
                "LOCATION": options.pop("LOCATION", server.url),
                "OPTIONS": {
                    "TOKEN": server.token,
                    "BUCKET": f"{buckets}_{alias}",
                    **PATIENT,
                    **options,
                },
            }
            for alias, options in aliases.items()
        }

    yield set_up
    for cache in nats_caches().values():
        if DEAD not in cache.config.connection.servers:
            api(cache, f"STREAM.DELETE.{cache.bucket.config.stream}")


@pytest.fixture
def nats() -> Nats:
    """Return a function that runs ``manage.py nats`` and returns what it writes."""

    def run(*arguments: str, **options: object) -> str:
        out = io.StringIO()
        call_command("nats", *arguments, stdout=out, **options)
        return out.getvalue()

    return run


@pytest.fixture
def declare() -> Callable[..., Limit]:
    """Return a function that declares a limit, which stays declared until the test ends."""
    declared: list[Limit] = []

    def make(*args: Any, **options: Any) -> Limit:
        declared.append(Limit(*args, **options))
        return declared[-1]

    return make


@pytest.fixture
def failing_nats() -> Callable[..., tuple[str, str]]:
    """Return a function that runs ``manage.py nats`` and returns its output and its error."""

    def run(*arguments: str) -> tuple[str, str]:
        out = io.StringIO()
        with pytest.raises(CommandError) as caught:
            call_command("nats", *arguments, stdout=out)
        return out.getvalue(), str(caught.value)

    return run


def count(counters: Counters, totals: Mapping[str, int]) -> None:
    """Add to many counters by their subjects, in batches of 1,000."""

    def steps() -> Steps[None]:
        stream = counters.stream
        increments = [
            stream.publishing.increment(subject, total) for subject, total in totals.items()
        ]
        for start in range(0, len(increments), 1000):
            yield from stream.publishing.publish(increments[start : start + 1000])
        assert [each.failure for each in increments if each.failure] == []

    drivers.run(counters.session, steps())
