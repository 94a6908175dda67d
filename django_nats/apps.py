"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DjangoNatsConfig(AppConfig):
    """Put "django_nats" into INSTALLED_APPS for the `nats` command and the system checks."""

    name = "django_nats"
    verbose_name = "NATS"

    def ready(self) -> None:
        """Register the system checks; nothing is opened."""
        from . import checks  # noqa: F401  # importing is registering
