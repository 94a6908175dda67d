"""The checks of NATS_COUNTERS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ..conf.counters import CounterSettings, counter_aliases, counter_settings
from . import streams


def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """E001: every alias can be read."""
    for alias in counter_aliases():
        try:
            counter_settings(alias)
        except ImproperlyConfigured as error:
            yield Error(str(error), id="django_nats.E001")


def check_credentials(**kwargs: Any) -> Iterable[CheckMessage]:
    """W001: no credentials in URLs."""
    entries = getattr(settings, "NATS_COUNTERS", {})
    for alias in _sound():
        if "@" in str(entries[alias].get("LOCATION", "")):
            yield Warning(
                f'The LOCATION of NATS_COUNTERS["{alias}"] holds credentials, and Django\'s debug '
                "page and error mails show it.",
                hint='Put them beside it, as "USER" and "PASSWORD" or "TOKEN".',
                id="django_nats.W001",
            )


def check_shared_streams(**kwargs: Any) -> Iterable[CheckMessage]:
    """E002: aliases that share a stream have the same options."""
    for shared in streams.by_stream(streams.of_counters(_sound())):
        yield from streams.disagreed(
            shared, "Give each a STREAM of its own, or the same options, DEADLINE included."
        )


def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """W005, W006: the streams are what settings say."""
    kept = streams.of_counters(_sound())
    for shared in streams.by_stream(each for each in kept if each.connection.embedded is None):
        yield from streams.compared(shared)


def _sound() -> dict[str, CounterSettings]:
    found = {}
    for alias in counter_aliases():
        try:
            found[alias] = counter_settings(alias)
        except ImproperlyConfigured:
            continue  # E001
    return found


CHECKS = (check_configuration, check_credentials, check_shared_streams)
DEPLOY = (check_servers,)
"""Those that only ``check --deploy`` runs."""
