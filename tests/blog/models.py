"""Models with counters, of every kind that Django knows."""

from __future__ import annotations

import uuid

from django.db import models

from django_nats.counters import CounterField, CounterQuerySet


class Author(models.Model):
    name = models.CharField(max_length=100, default="Ada")


class Article(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, null=True)
    title = models.CharField(max_length=100, default="On engines")
    views = CounterField(help_text="Since it was published")
    likes = CounterField("hearts")

    objects = CounterQuerySet.as_manager()


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


class DinerProxy(Diner):
    class Meta:
        proxy = True


class Ticket(models.Model):
    pk = models.CompositePrimaryKey("event", "seat")
    event = models.IntegerField()
    seat = models.CharField(max_length=10)
    scans = CounterField()


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
