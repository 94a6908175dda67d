"""Calls of the public API of counters, as users write them, with the type of every result."""

from __future__ import annotations

import sys

from django.contrib import admin
from django.db.models import QuerySet

from django_nats.client.transport.session import Session
from django_nats.conf.counters import CounterSettings
from django_nats.counters import (
    BoundCounter,
    Counter,
    CounterField,
    CounterQuerySet,
    Counters,
    Name,
    SnapshotField,
    aprefetch_counters,
    counter_fields,
    counters,
    prefetch_counters,
)
from django_nats.counters.admin import CounterAdminMixin
from django_nats.exceptions import CounterUnavailable
from django_nats.stats import Pending
from tests.blog.models import Article, Book, Volume, VolumeQuerySet

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


# Counters ----------------------------------------------------------------------------------------


def one_counter() -> None:
    counter = Counter("clicks", "eu", alias="default")
    assert_type(counter, Counter)
    assert_type(counter.name, str | tuple[str, ...])
    assert_type(counter.alias, str)
    assert_type(counter.fail_open, bool)
    assert_type(counter.session, Session)
    assert_type(counter.value(), int | None)
    assert_type(counter.incr(), int | None)
    assert_type(counter.incr(n=2), int | None)
    assert_type(counter.decr(n=2), int | None)
    assert_type(counter.set(7), int | None)
    assert_type(counter.reset(), None)
    assert_type(counter.take(n=2, floor=-5), bool)
    assert_type(counter.sources(), dict[str, int])
    assert_type(counter.incr_later(n=2), None)
    assert_type(int(counter), int)
    assert_type(counter.tolist(), int | None)
    assert_type(str(counter), str)
    assert_type(f"{counter:,}", str)
    if counter > 5 and counter == Counter("other"):
        counter.reset()


async def one_counter_in_async_code(counter: Counter) -> None:
    assert_type(await counter.avalue(), int | None)
    assert_type(await counter.aincr(n=2), int | None)
    assert_type(await counter.adecr(n=2), int | None)
    assert_type(await counter.aset(7), int | None)
    assert_type(await counter.areset(), None)
    assert_type(await counter.atake(n=2, floor=-5), bool)
    assert_type(await counter.asources(), dict[str, int])


def many_counters() -> None:
    assert_type(counters, Counters)
    assert_type(counters["eu"], Counters)
    assert_type(counters.alias, str)
    assert_type(counters.settings, CounterSettings)
    assert_type(counters.fail_open, bool)
    assert_type(counters.session, Session)
    assert_type(counters.incr("page.home", n=2), int | None)
    assert_type(counters.incr(("clicks", "eu.west")), int | None)
    assert_type(counters.get_many(["a", "b"]), dict[str, int | None])
    assert_type(counters.get_many([("a", "b")]), dict[tuple[str, str], int | None])
    names: list[Name] = ["a", ("b", "c")]
    assert_type(counters.get_many(names), dict[Name, int | None])
    assert_type(counters.matching("page.*"), dict[Name, int])
    assert_type(counters.total("page.>"), int | None)
    assert_type(counters.incr_later("page.home", n=2), None)
    assert_type(counters.pending, Pending)
    assert_type(counters.flush(timeout=1.5), None)


async def many_counters_in_async_code() -> None:
    assert_type(await counters.aincr("page.home", n=2), int | None)
    assert_type(await counters.aget_many(["a", "b"]), dict[str, int | None])
    assert_type(await counters.amatching("page.*"), dict[Name, int])
    assert_type(await counters.atotal("page.>"), int | None)
    assert_type(await counters.aflush(timeout=1.5), None)


# On models ---------------------------------------------------------------------------------------


def on_models(article: Article) -> None:
    assert_type(Article.views, CounterField)
    assert_type(Article.views.counter(7), Counter)
    assert_type(counter_fields(Article), list[CounterField])
    assert_type(article.views, BoundCounter)
    assert_type(article.views.name, tuple[str, ...])
    assert_type(article.views.value(), int | None)
    assert_type(article.views.incr(n=2), int | None)
    assert_type(article.views.incr(on_commit=True), None)
    assert_type(article.views.decr(), int | None)
    assert_type(article.views.incr_later(), None)
    assert_type(article.views.take(), bool)
    assert_type(article.views.keep(5), None)
    assert_type(prefetch_counters([article], "views"), None)


def in_columns(book: Book) -> None:
    assert_type(book.loans_total, int)
    book.loans_total = 3
    assert_type(SnapshotField(db_index=True), SnapshotField)


async def on_models_in_async_code(article: Article) -> None:
    assert_type(await article.views.aincr(n=2), int | None)
    assert_type(await article.views.aincr(on_commit=True), None)
    assert_type(await aprefetch_counters([article], "views"), None)
    async for each in Article.objects.with_counters("views").aiterator():
        assert_type(each, Article)


def querysets() -> None:
    for each in Article.objects.with_counters("views").filter(title="On engines"):
        assert_type(each, Article)
    for each in Article.objects.filter(title="On engines").with_counters():
        assert_type(each, Article)
    for each in Article.objects.with_counters().without_counters().iterator(chunk_size=100):
        assert_type(each, Article)
    assert_type(Article.objects.with_counters().delete(), tuple[int, dict[str, int]])


def other_querysets(articles: CounterQuerySet[Article]) -> QuerySet[Article]:
    assert_type(articles.with_counters("views"), CounterQuerySet[Article])
    assert_type(articles.without_counters(), CounterQuerySet[Article])
    assert_type(articles.with_counters().first(), Article | None)
    return articles


def querysets_of_a_subclass() -> None:
    assert_type(Volume.objects.long(), VolumeQuerySet)
    assert_type(Volume.objects.with_counters().long(), VolumeQuerySet)
    assert_type(Volume.objects.filter(pages=3).with_counters("readers").long(), VolumeQuerySet)
    assert_type(Volume.objects.create(), Volume)
    assert_type(Volume.objects.long().get(), Volume)
    for each in Volume.objects.long().exclude(pages=3).order_by("pages")[:3]:
        assert_type(each, Volume)


def counting(article: Article) -> bool:
    try:
        article.views.incr()
    except CounterUnavailable as error:
        assert_type(error.may_have_happened, bool)
        return error.may_have_happened
    return True


class ArticleAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("title", "views")
