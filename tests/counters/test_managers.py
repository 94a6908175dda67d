"""Managers that always read counters, and querysets that are mixed with those of other packages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.templatetags.admin_list import date_hierarchy
from django.contrib.auth.models import AnonymousUser, User
from django.db import models
from django.db.models import Count, F, Max
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject
from django.views.generic.dates import ArchiveIndexView, DayArchiveView

from django_nats.counters import CounterQuerySet, Counters, aprefetch_counters, prefetch_counters
from tests.blog.models import Article, Author, Letter

from .test_query import RoundTrips, committing, prefetched_total, proxy

__all__ = ["proxy"]

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 11, 29, 12, tzinfo=dt.timezone.utc)


@pytest.fixture
def letter(counters: Counters) -> Letter:
    letter: Letter = Letter.objects.create(
        author=Author.objects.create(), day=NOON.date(), arrived=NOON
    )
    letter.answers.incr(3)
    return letter


WITHOUT_INSTANCES: dict[str, tuple[Callable[[], Any], Any]] = {
    "dates": (lambda: list(Letter.objects.dates("day", "month")), [dt.date(2026, 11, 1)]),
    "datetimes": (lambda: list(Letter.objects.datetimes("arrived", "hour")), [NOON]),
    "values": (lambda: list(Letter.objects.values("day")), [{"day": NOON.date()}]),
    "values_list": (lambda: list(Letter.objects.values_list("day")), [(NOON.date(),)]),
    "flat": (lambda: list(Letter.objects.values_list("day", flat=True)), [NOON.date()]),
    "named": (lambda: Letter.objects.values_list("day", named=True)[0].day, NOON.date()),
    "get": (lambda: Letter.objects.values_list("day").get(), (NOON.date(),)),
    "groups": (
        lambda: list(Letter.objects.values("day").annotate(number=Count("pk")).values("number")),
        [{"number": 1}],
    ),
    "iterator": (lambda: list(Letter.objects.values("day").iterator()), [{"day": NOON.date()}]),
    "union": (
        lambda: list(Letter.objects.values("day").union(Letter.objects.values("day"))),
        [{"day": NOON.date()}],
    ),
    "aggregate": (lambda: Letter.objects.aggregate(last=Max("day")), {"last": NOON.date()}),
    "update": (lambda: Letter.objects.update(day=F("day")), 1),
    "subquery": (lambda: Author.objects.filter(letter__in=Letter.objects.all()).count(), 1),
}


@pytest.mark.parametrize("way", WITHOUT_INSTANCES)
def test_a_query_without_instances_reads_no_counters(proxy: Any, letter: Letter, way: str) -> None:
    query, expected = WITHOUT_INSTANCES[way]
    with RoundTrips(proxy) as trips:
        assert query() == expected
    assert trips.count == 0


@committing
async def test_async_iteration_over_values_reads_no_counters(proxy: Any) -> None:
    await Letter.objects.acreate(day=NOON.date(), arrived=NOON)
    with RoundTrips(proxy) as trips:
        days = Letter.objects.values_list("day", flat=True)
        assert [each async for each in days] == [NOON.date()]
        assert [each async for each in days.aiterator()] == [NOON.date()]
    assert trips.count == 0


def test_instances_of_such_a_manager_have_their_totals(proxy: Any, letter: Letter) -> None:
    with RoundTrips(proxy) as trips:
        assert prefetched_total(Letter.objects.get(), "answers") == 3
        assert [prefetched_total(each, "answers") for each in Letter.objects.iterator()] == [3]
        (author,) = Author.objects.prefetch_related("letter_set")
        assert [prefetched_total(each, "answers") for each in author.letter_set.all()] == [3]
    assert trips.count == 3


def test_setting_related_objects_reads_no_counters(proxy: Any, letter: Letter) -> None:
    other = Author.objects.create()
    with RoundTrips(proxy) as trips:
        other.letter_set.set([letter])
        assert other.letter_set.values_list("pk", flat=True).get() == letter.pk
    assert trips.count == 0


def test_archives_by_date_show_their_objects_with_totals(proxy: Any, letter: Letter) -> None:
    request = RequestFactory().get("/")
    with RoundTrips(proxy) as trips:
        index = ArchiveIndexView.as_view(model=Letter, date_field="day", template_name="x.html")
        response: Any = index(request)
        (shown,) = response.context_data["latest"]
    assert (prefetched_total(shown, "answers"), trips.count) == (3, 1)
    with RoundTrips(proxy) as trips:
        day = DayArchiveView.as_view(
            model=Letter, date_field="arrived", month_format="%m", template_name="x.html"
        )
        response = day(request, year=2026, month=11, day=29)
        shown = response.context_data["object_list"]
        assert [each.pk for each in shown] == [letter.pk]
    assert trips.count == 1


@pytest.mark.parametrize("field", ["day", "arrived"])
@pytest.mark.parametrize("query", ["", "YEAR__year=2026", "YEAR__year=2026&YEAR__month=11"])
def test_the_admin_offers_dates_without_reading_counters(
    proxy: Any, letter: Letter, field: str, query: str
) -> None:
    site = admin.AdminSite()
    site.register(Letter, type("Letters", (admin.ModelAdmin,), {"date_hierarchy": field}))
    request = RequestFactory().get(f"/?{query.replace('YEAR', field)}")
    request.user = User(is_superuser=True, is_active=True)
    listed = site._registry[Letter].get_changelist_instance(request)
    with RoundTrips(proxy) as trips:
        offered: Any = date_hierarchy(listed)
        assert offered["show"]
    assert trips.count == 0


# Querysets of other packages -----------------------------------------------------------------


class FlaggingQuerySet(models.QuerySet[Any]):
    """Its methods take more arguments than Django's."""

    def delete(self, force_policy: str = "soft") -> Any:
        return force_policy

    def iterator(self, chunk_size: int | None = None, flag: str = "") -> Any:
        for each in super().iterator(chunk_size):
            each.title = flag
            yield each

    async def aiterator(self, chunk_size: int = 100, flag: str = "") -> Any:
        async for each in super().aiterator(chunk_size):
            each.title = flag
            yield each


class FlaggedQuerySet(CounterQuerySet[Any], FlaggingQuerySet):  # type: ignore[override]
    pass


def test_arguments_are_passed_on_to_a_queryset_of_another_package(proxy: Any) -> None:
    Article.objects.create()
    articles: Any = FlaggedQuerySet(Article)
    with RoundTrips(proxy) as trips:
        assert articles.delete() == "soft"
        assert articles.with_counters().delete(force_policy="hard") == "hard"
        assert [each.title for each in articles.iterator(flag="a")] == ["a"]
    assert trips.count == 0
    (article,) = articles.with_counters().iterator(100, "b")
    assert (article.title, prefetched_total(article)) == ("b", 0)


@committing
async def test_arguments_of_async_methods_are_passed_on(counters: Counters) -> None:
    await Article.objects.acreate()
    articles: Any = FlaggedQuerySet(Article)
    (article,) = [each async for each in articles.with_counters().aiterator(100, flag="c")]
    assert (article.title, prefetched_total(article)) == ("c", 0)


# Lazy objects --------------------------------------------------------------------------------


def test_a_lazy_object_is_prefetched_as_the_object_that_it_stands_for(counters: Counters) -> None:
    article = Article.objects.create()
    article.views.incr(3)
    lazy: Any = SimpleLazyObject(lambda: article)
    prefetch_counters([lazy], "views")
    assert prefetched_total(article) == 3


@committing
async def test_a_lazy_object_is_prefetched_in_async_code(counters: Counters) -> None:
    article = await Article.objects.acreate()
    lazy: Any = SimpleLazyObject(lambda: article)
    await aprefetch_counters([lazy])
    assert prefetched_total(article) == 0


def test_a_lazy_object_that_is_no_model_instance_is_refused_by_its_name() -> None:
    lazy: Any = SimpleLazyObject(AnonymousUser)
    with pytest.raises(TypeError, match="not with AnonymousUser"):
        prefetch_counters([lazy])
