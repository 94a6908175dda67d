"""Running ``manage.py nats`` on the buckets of CACHES, and their streams."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_nats.cache import NatsCache, nats_caches
from django_nats.client import drivers
from django_nats.client.protocol.steps import Steps
from tests.conftest import api

DEAD = "nats://127.0.0.1:1"


def nats(*arguments: str) -> str:
    """Run ``manage.py nats`` and return what it writes."""
    out = io.StringIO()
    call_command("nats", *arguments, stdout=out)
    return out.getvalue()


def failing_nats(*arguments: str) -> tuple[str, str]:
    """Run ``manage.py nats``, which must fail, and return its output and its error."""
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("nats", *arguments, stdout=out)
    return out.getvalue(), str(caught.value)


def stream(alias: str = "default") -> dict[str, Any]:
    """Return the STREAM.INFO of an alias's stream, an error if there is no stream."""
    cache = nats_caches()[alias]
    return api(cache, f"STREAM.INFO.{cache.bucket.config.stream}")


def make_stream(alias: str = "default", **changes: Any) -> None:
    """Create an alias's stream with changes, as another program might."""
    cache = nats_caches()[alias]
    document = {**cache.bucket.config.stream_config(), **changes}
    answer = api(cache, f"STREAM.CREATE.{document['name']}", document)
    assert "error" not in answer, answer


def publish(cache: NatsCache, subject: str, payload: bytes) -> None:
    def steps() -> Steps[None]:
        yield cache.bucket.stream.api_request(subject, payload)

    drivers.run(cache.session, steps())
