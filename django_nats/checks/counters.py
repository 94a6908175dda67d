"""The system checks of NATS_COUNTERS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

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
    """Yield W005 or W006 for streams that differ from settings, or cannot be compared."""
    found = streams.of_counters(_valid_settings())
    for shared in streams.by_stream(each for each in found if each.connection.embedded is None):
        yield from streams.check_differences(shared)


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
