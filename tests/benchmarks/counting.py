"""Counters in the place of a cache, as far as the questions need one, and on a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import models

from django_nats.counters import Counter, CounterField, counters


class CounterCache:
    """The default alias of NATS_COUNTERS, which the worker makes from the same entry of CACHES."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        # What is measured is a view's own call, not one within another.
        self.incr, self.aincr = counters.incr, counters.aincr

    def get(self, key: str) -> int:
        return int(Counter(key))

    def set(self, key: str, value: int | str, timeout: float | None) -> None:
        Counter(key).set(int(value))

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Article(models.Model):
    """What a page shows many of. No database is asked for them: only counters are measured."""

    views = CounterField()

    class Meta:
        app_label = "benchmark"

    @classmethod
    def loaded(cls, count: int) -> list[Article]:
        """As a query makes them."""
        return [cls.from_db("default", ["id"], [number]) for number in range(1, count + 1)]
