"""Models with counters, of every kind that Django knows."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.db import models

from django_nats.counters import CounterField, CounterQuerySet, SnapshotField

if TYPE_CHECKING:
    from typing_extensions import Self


class Author(models.Model):
    name = models.CharField(max_length=100, default="Ada")


class Article(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    title = models.CharField(max_length=100, default="On engines")
    views = CounterField(help_text="Since it was published")
    likes = CounterField("hearts")

    objects = CounterQuerySet["Article"].as_manager()


class ArticleProxy(Article):
    class Meta:
        proxy = True


class Plain(models.Model):
    """None of its own: what is said to those who look for one."""


class Counted(models.Model):
    hits = CounterField()

    class Meta:
        abstract = True


class Page(Counted):
    pass


class Post(Counted):
    pass


class Place(models.Model):
    visits = CounterField()


class Restaurant(Place):
    meals = CounterField()


class Diner(Restaurant):
    """With a key of its own, beside its parents'."""

    number = models.AutoField(primary_key=True)
    parent = models.OneToOneField(Restaurant, models.CASCADE, parent_link=True)


class Booking(models.Model):
    restaurant = models.ForeignKey(Restaurant, models.CASCADE, null=True)
    product = models.ForeignKey("Product", models.CASCADE, null=True)


class DinerProxy(Diner):
    class Meta:
        proxy = True


class Ticket(models.Model):
    pk = models.CompositePrimaryKey("event", "seat")
    event = models.IntegerField()
    seat = models.CharField(max_length=10)
    holder = models.CharField(max_length=10, default="")
    gate = models.CharField(max_length=10, default="")
    scans = CounterField(snapshot="scans_total")
    scans_total = SnapshotField()


class Document(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    downloads = CounterField()


class Tag(models.Model):
    name = models.CharField(max_length=100, primary_key=True)
    uses = CounterField()


class Profile(models.Model):
    document = models.OneToOneField(Document, models.CASCADE, primary_key=True)
    visits = CounterField()


class Product(models.Model):
    """It was an item of another app, and has kept its counters."""

    sold = CounterField(subject="shop.item.{pk}.sold", snapshot="sold_total")
    sold_total = models.BigIntegerField(default=0)


class Book(models.Model):
    """Its total is in a column of its own kind."""

    title = models.CharField(max_length=100)
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    loans = CounterField(snapshot="loans_total")
    loans_total = SnapshotField(db_index=True)


class BookProxy(Book):
    class Meta:
        proxy = True


class Atlas(Book):
    maps = models.IntegerField(default=0)


class CountingManager(models.Manager["Letter"]):
    """A manager that always reads counters."""

    def get_queryset(self) -> models.QuerySet[Letter]:
        return CounterQuerySet["Letter"](self.model, using=self._db).with_counters()


class Letter(models.Model):
    """Kept by date."""

    author = models.ForeignKey(Author, models.CASCADE, null=True)
    day = models.DateField()
    arrived = models.DateTimeField()
    answers = CounterField()

    objects = CountingManager()


class VolumeQuerySet(CounterQuerySet["Volume"]):
    def long(self) -> Self:
        found: Self = self.filter(pages__gt=50)
        return found


class Volume(models.Model):
    pages = models.IntegerField(default=1)
    readers = CounterField()

    objects = VolumeQuerySet.as_manager()
