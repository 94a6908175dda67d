"""Counters with the methods of a cache that the questions use, and counters of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import models

from django_nats.counters import Counter, CounterField, counters


class CounterCache:
    """The default alias of NATS_COUNTERS, which the worker makes from the same entry of CACHES."""

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        # Attributes, not methods, so that the calls have no extra frame.
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
    """A model with a counter. It needs no database, since only counters are measured."""

    views = CounterField()

    class Meta:
        app_label = "benchmark"

    @classmethod
    def loaded(cls, count: int) -> list[Article]:
        """Return new instances, created as a query creates them."""
        return [cls.from_db("default", ["id"], [number]) for number in range(1, count + 1)]
