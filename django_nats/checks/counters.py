"""The system checks of NATS_COUNTERS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured

from ..client.counters.config import nearly_full
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


CHECKS = (check_configuration, check_binary, check_credentials, check_shared_streams)
DEPLOY = (check_servers,)
"""The checks that only ``check --deploy`` runs."""
