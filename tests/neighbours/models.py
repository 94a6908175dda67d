"""Models with counters, each with what one package adds to a model."""

from __future__ import annotations

from auditlog.registry import auditlog
from django.db import models
from model_utils import FieldTracker
from polymorphic.models import PolymorphicModel
from simple_history.models import HistoricalRecords

from django_nats.counters import CounterField


class Story(models.Model):
    title = models.CharField(max_length=100)
    summary = models.CharField(max_length=100, blank=True)
    views = CounterField(help_text="Since it was published")


class Recorded(models.Model):
    title = models.CharField(max_length=100)
    views = CounterField()
    history = HistoricalRecords()


class Tracked(models.Model):
    title = models.CharField(max_length=100)
    views = CounterField()
    tracker = FieldTracker()


class Audited(models.Model):
    title = models.CharField(max_length=100)
    views = CounterField()


auditlog.register(Audited)


class Work(PolymorphicModel):
    title = models.CharField(max_length=100)
    views = CounterField()


class Engraving(Work):
    prints = CounterField()


class Misrecorded(models.Model):
    """It names a counter in an option: what the documentation advises against."""

    title = models.CharField(max_length=100)
    views = CounterField()
    history = HistoricalRecords(excluded_fields=["views"])


class Mistracked(models.Model):
    """It names a counter in an option: what the documentation advises against."""

    views = CounterField()
    tracker = FieldTracker(fields=["views"])
