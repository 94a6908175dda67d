from __future__ import annotations

from django.apps import AppConfig


class MagazineConfig(AppConfig):
    name = "testproject.magazine"
