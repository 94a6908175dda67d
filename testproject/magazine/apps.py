from __future__ import annotations

from django.apps import AppConfig


class MagazineConfig(AppConfig):
    name = "testproject.magazine"

    def ready(self) -> None:
        from testproject.magazine import flags  # noqa: F401 (connects its receivers)
