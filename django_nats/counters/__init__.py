"""Counters on the server, which adds to them itself: without locks or lost updates.

from django_nats.counters import Counter, counters

counters.incr("page.home")
Counter("clicks", region, page).incr()

class Article(models.Model):
    views = CounterField()
"""

from __future__ import annotations

from .bound import BoundCounter
from .collection import Counters, Name, counters
from .fields import CounterField, counter_fields
from .handle import Counter
from .query import CounterQuerySet, aprefetch_counters, prefetch_counters
from .snapshots import SnapshotField

__all__ = [
    "BoundCounter",
    "Counter",
    "CounterField",
    "CounterQuerySet",
    "Counters",
    "Name",
    "SnapshotField",
    "aprefetch_counters",
    "counter_fields",
    "counters",
    "prefetch_counters",
]
