"""The Django application configuration."""

from __future__ import annotations

from django.apps import AppConfig


class DjangoNatsConfig(AppConfig):
    """The application that adds the ``nats`` command and the system checks to a project."""

    name = "django_nats"
    verbose_name = "NATS"

    def ready(self) -> None:
        """Register the system checks. No connection is opened."""
        from . import checks  # noqa: F401  # importing registers them
