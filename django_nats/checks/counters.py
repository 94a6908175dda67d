"""The system checks of NATS_COUNTERS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ..client.counters.config import nearly_full
from ..client.streams.api import DEFAULT_PREFIX
from ..conf.counters import CounterSettings, counter_aliases, counter_settings
from . import entries, streams


def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E001 if an alias cannot be configured. No server is asked."""
    yield from entries.configuration_errors(counter_aliases(), counter_settings)


def check_binary(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E008 if an embedded server cannot be started, as there is no nats-server."""
    found = _valid_settings()
    embedded = [alias for alias in found if found[alias].connection.embedded is not None]
    yield from entries.missing_binary("NATS_COUNTERS", embedded)


def check_credentials(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W001 if a URL holds credentials."""
    found = getattr(settings, "NATS_COUNTERS", {})
    yield from entries.credentials_in_urls(
        "NATS_COUNTERS", found, _valid_settings(), "beside LOCATION"
    )


def check_shared_streams(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E002 if aliases share a stream, but have different options for it."""
    for shared in streams.by_stream(streams.of_counters(_valid_settings())):
        yield from streams.check_agreement(
            shared, "Give each a STREAM of its own, or the same options, DEADLINE included."
        )


def check_domains(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E010 if streams in several JetStream domains have the same subjects.

    Leaf nodes carry an increment to every domain that has a stream for its subject, and each stream
    counts it.
    """
    found = streams.by_stream(streams.of_counters(_valid_settings()))
    for (one, *_), (other, *_) in combinations(found, 2):
        first, second = one.stream.config, other.stream.config
        shorter, longer = sorted((f"{first.prefix}.", f"{second.prefix}."))
        if _may_be_joined(one, other) and longer.startswith(shorter):
            yield Error(
                f"{one.entry} and {other.entry} count in different JetStream domains, under the "
                f"subjects {first.prefix}.> and {second.prefix}.>: where leaf nodes join the "
                "domains, both streams count each increment.",
                hint="Give each a PREFIX of its own, or the same JS_DOMAIN if they are the same "
                "stream.",
                id="django_nats.E010",
            )


def _may_be_joined(one: streams.StreamOf, other: streams.StreamOf) -> bool:
    """Return True if two streams are in different domains, as far as settings tell."""
    first, second = one.stream.config, other.stream.config
    if first.sources or second.sources or first.domain == second.domain:
        return False  # sums have no subjects
    if first.domain is not None and second.domain is not None:
        return True
    # The stream without JS_DOMAIN is in the domain of the servers that are asked for it.
    other_prefix = second.api_prefix if first.domain is not None else first.api_prefix
    servers = set(one.connection.servers)
    return other_prefix == DEFAULT_PREFIX and servers == set(other.connection.servers)


def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W005, W006 or W012 for streams that differ from settings, or are nearly full."""
    found = streams.of_counters(_valid_settings())
    for shared in streams.by_stream(each for each in found if each.connection.embedded is None):
        yield from streams.check_differences(shared, check_room)


def check_room(
    shared: Sequence[streams.StreamOf], document: Mapping[str, Any]
) -> Iterator[CheckMessage]:
    """Yield W012 if a counter stream has used most of its MAX_BYTES."""
    if (problem := nearly_full(document["config"], document["state"])) is not None:
        yield Warning(
            f"The {shared[0].title} of {streams.entries(shared)} is nearly full: {problem}.",
            hint="Raise MAX_BYTES and run `manage.py nats setup`, or reset counters that are not "
            "needed.",
            id="django_nats.W012",
        )


def _valid_settings() -> dict[str, CounterSettings]:
    found = {}
    for alias in counter_aliases():
        try:
            found[alias] = counter_settings(alias)
        except ImproperlyConfigured:
            continue  # E001
    return found


CHECKS = (
    check_configuration,
    check_binary,
    check_credentials,
    check_shared_streams,
    check_domains,
)
DEPLOY = (check_servers,)
"""The checks that only ``check --deploy`` runs."""
