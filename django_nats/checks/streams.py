"""The streams of caches, counters, limits and quotas, and the aliases that share them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from django.core.checks import CheckMessage, Error, Warning

from ..cache import NatsCache
from ..client import drivers, process
from ..client.counters.config import CounterConfig
from ..client.streams.differences import differences
from ..client.streams.stream import Stream
from ..client.transport.config import ConnectionConfig
from ..client.transport.session import Session
from ..conf.counters import CounterSettings, counter_settings
from ..conf.limit_streams import HORIZONS, limit_stream, quota_stream
from ..exceptions import NatsError
from ..limits.limit import Limit
from ..limits.periods import SECONDS
from ..limits.quota import Quota
from ..limits.rates import Rate

_SETTLE_TIMEOUT_S = 0.5


class StreamOf(NamedTuple):
    """One stream of an alias, of CACHES or NATS_COUNTERS."""

    alias: str
    entry: str
    """The entry in settings, such as CACHES["default"]."""
    named_by: str
    """The option that names the stream."""
    connection: ConnectionConfig
    stream: Stream[Any]
    limits: tuple[Limit | Quota, ...] = ()
    """The limits or quotas that are known to count in it."""

    @property
    def session(self) -> Session:
        """Return the connection to the stream's servers."""
        return process.session(self.connection)

    @property
    def title(self) -> str:
        """Return what messages call the stream, such as "bucket web"."""
        return str(self.stream.config.title)


def of_caches(caches: Mapping[str, NatsCache]) -> list[StreamOf]:
    """Return the stream of each cache."""
    return [
        StreamOf(
            alias, f'CACHES["{alias}"]', "BUCKET", cache.config.connection, cache.bucket.stream
        )
        for alias, cache in caches.items()
    ]


def of_counters(aliases: Mapping[str, CounterSettings]) -> list[StreamOf]:
    """Return the counter stream of each alias."""
    return [_counters_of(settings, settings.stream) for settings in aliases.values()]


def _counters_of(settings: CounterSettings, config: CounterConfig) -> StreamOf:
    stream = process.counter_stream(settings.connection, config).stream
    entry = f'NATS_COUNTERS["{settings.alias}"]'
    return StreamOf(settings.alias, entry, "STREAM", settings.connection, stream)


def of_limits(limits: Iterable[Limit | Quota]) -> list[StreamOf]:
    """Return the streams in which limits and quotas count, each once for every alias.

    A rate that is a function is not called: the first hit creates its stream.
    """
    found: dict[tuple[str, str], StreamOf] = {}
    for limit in limits:
        settings = counter_settings(limit.alias)
        for config in _configs(limit, settings):
            place = limit.alias, config.stream
            known = found.get(place) or _counters_of(settings, config)
            found[place] = known._replace(limits=(*known.limits, limit))
    return list(found.values())


def _configs(limit: Limit | Quota, settings: CounterSettings) -> list[CounterConfig]:
    if isinstance(limit, Quota):
        return [quota_stream(settings, SECONDS[limit.per])]
    lengths = {rate.seconds for rate in limit.rates if isinstance(rate, Rate)}
    return [limit_stream(settings, seconds) for seconds in sorted(lengths)]


def of_any_limits(settings: CounterSettings) -> list[StreamOf]:
    """Return all streams in which limits of an alias may count, now or before."""
    configs = (limit_stream(settings, horizon.seconds) for horizon in HORIZONS)
    return [_counters_of(settings, each) for each in configs]


def by_stream(streams: Iterable[StreamOf]) -> list[list[StreamOf]]:
    """Group the aliases that share a stream."""
    shared: dict[object, list[StreamOf]] = {}
    for each in streams:
        # Other credentials may belong to another account, in which the name is that of another
        # stream. The options that are blanked here cannot lead to another stream.
        account = replace(
            each.connection,
            servers=tuple(sorted(each.connection.servers)),
            name="",
            inbox_prefix="",
            connect_timeout=0.0,
            max_reconnect_wait=0.0,
            max_refused_wait=0.0,
        )
        kind, config = type(each.stream), each.stream.config
        shared.setdefault((kind, account, config.api_prefix, config.stream), []).append(each)
    return list(shared.values())


def entries(shared: Sequence[StreamOf]) -> str:
    """Return the entries of settings that share a stream, for a message."""
    return " and ".join(each.entry for each in shared)


def disagreement(shared: Sequence[StreamOf]) -> str | None:
    """Return an error message if aliases share a stream, but have different options for it."""
    first, *others = shared
    for other in others:
        one, another = first.stream.config, other.stream.config
        found = differences(one, another.stream_config(), {})
        if not found:  # what only the other names
            found = [each.reverse() for each in differences(another, one.stream_config(), {})]
        if found:
            fields = ", ".join(
                f"{each.field} {' or '.join(reversed(each.texts))}" for each in found
            )
            return (
                f"{entries((first, other))} share the {first.title}, but have different options "
                f"for it: {fields}."
            )
    return None


def check_differences(
    shared: Sequence[StreamOf],
    *further: Callable[[Sequence[StreamOf], Mapping[str, Any]], Iterator[CheckMessage]],
) -> Iterator[CheckMessage]:
    """Yield W005 if a stream differs from settings, and W006 if it cannot be compared.

    Asks the server, and changes nothing there. Further checks get the server's document.
    """
    first = shared[0]
    try:
        with outages_unlogged():
            document = drivers.run(first.session, first.stream.opening.info())
    except NatsError as error:
        yield Warning(
            f"The {first.title} of {entries(shared)} could not be compared with settings: {error}",
            id="django_nats.W006",
        )
        return
    if document is None:
        return  # the first use creates it as settings say
    found = differences(first.stream.config, document["config"], document["state"])
    if found:
        hint = "Run `manage.py nats setup`: it changes what can be changed without losing data."
        if kept := [each.field for each in found if not each.fixable]:
            hint = (
                f"`manage.py nats setup` would refuse it because of {', '.join(kept)}. Correct the "
                f"options, or choose another {first.named_by}, or delete the stream "
                f"{first.stream.config.stream} if its contents are not needed."
            )
        yield Warning(
            f"The {first.title} of {entries(shared)} differs from settings: "
            f"{'; '.join(map(str, found))}.",
            hint=hint,
            id="django_nats.W005",
        )
    for check in further:
        yield from check(shared, document)


def check_agreement(shared: Sequence[StreamOf], hint: str) -> Iterator[CheckMessage]:
    """Yield E002 if aliases share a stream, but have different options for it."""
    if (problem := disagreement(shared)) is not None:
        yield Error(problem, hint=hint, id="django_nats.E002")


@contextmanager
def outages_unlogged() -> Iterator[None]:
    """Silence the warnings of an outage, for a caller that reports the outage itself."""
    logger = logging.getLogger("django_nats")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        # The loop logs an outage after it has raised the error in this thread. Wait for that.
        process.settle(_SETTLE_TIMEOUT_S)
        logger.setLevel(level)
