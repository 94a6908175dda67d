"""Models whose counters have columns beside them."""

from __future__ import annotations

from typing import Any

from django.db import models

from django_nats.counters import CounterField


class ShownManager(models.Manager[Any]):
    def get_queryset(self) -> models.QuerySet[Any]:
        films: models.QuerySet[Any] = super().get_queryset().filter(hidden=False)
        return films


class Film(models.Model):
    title = models.CharField(max_length=100, default="Metropolis")
    hidden = models.BooleanField(default=False)
    views = CounterField(snapshot="views_total")
    likes = CounterField(snapshot="likes_total")
    views_total = models.IntegerField(null=True, default=0)
    likes_total = models.PositiveSmallIntegerField(default=0)

    objects = ShownManager()

    class Meta:
        base_manager_name = "objects"


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=10)
    number = models.IntegerField()
    sold = CounterField(snapshot="sold_total")
    sold_total = models.BigIntegerField(default=0)


class Hall(models.Model):
    """No column; the name, which may have dots, is the key."""

    name = models.CharField(max_length=100, primary_key=True)
    visits = CounterField()
    visits_before = models.IntegerField(default=0)
