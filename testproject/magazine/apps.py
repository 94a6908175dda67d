"""The app of the magazine."""

from __future__ import annotations

from django.apps import AppConfig


class MagazineConfig(AppConfig):
    """The configuration of the magazine."""

    name = "testproject.magazine"

    def ready(self) -> None:
        """Connect the receivers of flags."""
        from testproject.magazine import flags  # noqa: F401 (the import connects them)
