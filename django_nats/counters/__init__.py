"""Counters that the server itself adds to: no lock, no lost update, exact through failover.

from django_nats.counters import Counter, counters

counters.incr("page.home")
Counter("clicks", region, page).incr()

class Article(models.Model):
    views = CounterField()
"""

from __future__ import annotations

from .collection import Counters, Name, counters
from .fields import BoundCounter, CounterField, counter_fields
from .handle import Counter
from .query import CounterQuerySet, aprefetch_counters, prefetch_counters

__all__ = [
    "BoundCounter",
    "Counter",
    "CounterField",
    "CounterQuerySet",
    "Counters",
    "Name",
    "aprefetch_counters",
    "counter_fields",
    "counters",
    "prefetch_counters",
]
