"""The streams that settings name, buckets and counters alike, and who shares them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from django.core.checks import CheckMessage, Error, Warning

from ..cache import NatsCache
from ..client import bridge
from ..client.config import ConnectionConfig
from ..client.differences import differences
from ..client.opening import Opening
from ..client.session import Session
from ..conf.counters import CounterSettings
from ..exceptions import NatsError

_LAST_WORDS = 0.5  # seconds


class Kept(NamedTuple):
    """What one alias keeps on NATS."""

    alias: str
    entry: str
    """Where settings speak of it, such as CACHES["default"]."""
    named_by: str
    """The option that names the stream."""
    connection: ConnectionConfig
    stream: Opening[Any]

    @property
    def session(self) -> Session:
        return bridge.session(self.connection)

    @property
    def title(self) -> str:
        """What messages call the stream, such as "bucket web"."""
        return str(self.stream.config.title)


def of_caches(caches: Mapping[str, NatsCache]) -> list[Kept]:
    return [
        Kept(alias, f'CACHES["{alias}"]', "BUCKET", cache._config.connection, cache._bucket)
        for alias, cache in caches.items()
    ]


def of_counters(aliases: Mapping[str, CounterSettings]) -> list[Kept]:
    return [
        Kept(
            alias,
            f'NATS_COUNTERS["{alias}"]',
            "STREAM",
            settings.connection,
            bridge.counter_stream(settings.connection, settings.stream),
        )
        for alias, settings in aliases.items()
    ]


def by_stream(kept: Iterable[Kept]) -> list[list[Kept]]:
    """Those together that are kept in one stream."""
    shared: dict[object, list[Kept]] = {}
    for each in kept:
        # Whoever logs in otherwise may be in another account, and not see the same stream.
        place = replace(
            each.connection,
            servers=tuple(sorted(each.connection.servers)),
            name="",
            inbox_prefix="",
            connect_timeout=0.0,
        )
        kind = type(each.stream)
        shared.setdefault((kind, place, each.stream.config.stream), []).append(each)
    return list(shared.values())


def entries(shared: Sequence[Kept]) -> str:
    return " and ".join(each.entry for each in shared)


def disagreement(shared: Sequence[Kept]) -> str | None:
    """What is wrong with aliases that share a stream and want it different, or None."""
    first, *others = shared
    for other in others:
        wanted = other.stream.config.stream_config()
        found = differences(first.stream.config, wanted, {})
        if found:
            fields = ", ".join(
                f"{each.field} {each.wanted!r} or {each.existing!r}" for each in found
            )
            return (
                f"{entries((first, other))} share the {first.title}, but disagree on its "
                f"options: {fields}?"
            )
    return None


def compared(shared: Sequence[Kept]) -> Iterator[CheckMessage]:
    """W005, W006: a stream is what settings say. Asks the server; changes nothing there."""
    first = shared[0]
    try:
        with outages_unlogged():
            document = bridge.run(first.session, first.stream.info())
    except NatsError as error:
        yield Warning(
            f"The {first.title} of {entries(shared)} could not be compared with settings: {error}",
            id="django_nats.W006",
        )
        return
    if document is None:
        return  # made as settings say, on first use
    found = differences(first.stream.config, document["config"], document["state"])
    if found:
        yield Warning(
            f"The {first.title} of {entries(shared)} differs from settings: "
            f"{'; '.join(map(str, found))}.",
            hint="`manage.py nats setup` changes what can be changed without losing data.",
            id="django_nats.W005",
        )


def disagreed(shared: Sequence[Kept], hint: str) -> Iterator[CheckMessage]:
    """E002: aliases that share a stream want it the same."""
    if (problem := disagreement(shared)) is not None:
        yield Error(problem, hint=hint, id="django_nats.E002")


@contextmanager
def outages_unlogged() -> Iterator[None]:
    """For those who report an outage in their own words: the log would only say it again."""
    logger = logging.getLogger("django_nats")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        bridge.settle(_LAST_WORDS)  # which logs an outage once it has told who waits
        logger.setLevel(level)
