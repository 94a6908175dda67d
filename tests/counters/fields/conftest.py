"""Fixtures: rows of models that have counters."""

from __future__ import annotations

import pytest

from django_nats.counters import Counters
from tests.blog.models import (
    Article,
)

everywhere = pytest.mark.django_db(databases=["default", "other"])


committing = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _counters(counters: Counters) -> None:
    """Set up the default alias for every test."""


@pytest.fixture
def article() -> Article:
    return Article.objects.create()
