"""These tests are collected where their packages are installed: ``tox -e neighbours``."""

from __future__ import annotations

from django.conf import settings

from tests.counters.conftest import configure, counters

__all__ = ["configure", "counters"]

if "tests.neighbours" not in settings.INSTALLED_APPS:
    collect_ignore_glob = ["test_*.py"]
