"""Counters of many objects, and the number of requests that reading them takes."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.core.paginator import Paginator
from django.db.models import Prefetch

from django_nats.client import process
from django_nats.counters import (
    Counters,
    aprefetch_counters,
    prefetch_counters,
)
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable
from tests.blog.models import Article, ArticleProxy, Author, Diner, Page, Plain, Product, Ticket
from tests.support.proxy import Proxy

from .conftest import Configure

pytestmark = pytest.mark.django_db

committing = pytest.mark.django_db(transaction=True)


@pytest.fixture
def proxy(server: NatsServer, counters: Counters, configure: Configure) -> Iterator[Proxy]:
    """Yield a proxy between the default alias and its server."""
    with Proxy(server.port) as between:
        configure(LOCATION=between.url)
        Counters().get_many(["warm-up"])
        yield between
        process.close()  # before the proxy stops, or the session would try to reconnect


class RoundTrips:
    """Count the round trips within a block: ``with RoundTrips(proxy) as trips``."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def __enter__(self) -> RoundTrips:
        self.before = self.proxy.round_trips
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.count = self.proxy.round_trips - self.before


def make(count: int) -> list[Article]:
    articles = Article.objects.bulk_create([Article() for _ in range(count)])
    for number, article in enumerate(articles[:10]):
        article.views.set(number)
        article.likes.set(100 * number)
    return articles


# prefetch_counters ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 25, 1200])
def test_prefetching_any_number_of_objects_takes_one_round_trip(proxy: Proxy, count: int) -> None:
    make(count)
    articles = list(Article.objects.order_by("pk"))
    with RoundTrips(proxy) as trips:
        prefetch_counters(articles, "views", "likes")
        shown = [f"{each.views} {each.likes}" for each in articles]
    assert shown[:10] == [f"{number} {100 * number}" for number in range(min(count, 10))]
    assert trips.count == 1


def test_async_prefetching_takes_one_round_trip(proxy: Proxy) -> None:
    articles = make(5)
    with RoundTrips(proxy) as trips:
        asyncio.run(aprefetch_counters(articles, "views"))
        assert [int(each.views) for each in articles] == [0, 1, 2, 3, 4]
    assert trips.count == 1


def test_prefetching_without_names_reads_all_counters(proxy: Proxy) -> None:
    article, page = make(2)[1], Page.objects.create()
    page.hits.incr(3)
    with RoundTrips(proxy) as trips:
        prefetch_counters(iter([article, page]))
        assert (article.views, article.likes, page.hits) == (1, 100, 3)
    assert trips.count == 1


def test_prefetching_without_counters_sends_no_request(proxy: Proxy) -> None:
    with RoundTrips(proxy) as trips:
        prefetch_counters([])
        prefetch_counters([Plain.objects.create()])
    assert trips.count == 0


def test_two_objects_of_the_same_row_both_get_their_total(counters: Counters) -> None:
    article = make(2)[1]
    again = ArticleProxy.objects.get(pk=article.pk)
    prefetch_counters([article, again], "views")
    assert prefetched_total(article) == prefetched_total(again) == 1


def test_inherited_fields_and_composite_keys_are_prefetched(counters: Counters) -> None:
    diner, ticket = Diner.objects.create(), Ticket.objects.create(event=1, seat="2")
    diner.visits.incr()
    ticket.scans.incr()
    prefetch_counters([diner, ticket])
    assert (prefetched_total(diner, "visits"), prefetched_total(ticket, "scans")) == (1, 1)


def test_each_alias_is_asked_for_its_own_counters(
    counters: Counters, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = configure("elsewhere")
    monkeypatch.setattr(Product.sold, "alias", "elsewhere")
    article, product = Article.objects.create(), Product.objects.create()
    article.views.incr(1)
    product.sold.incr(2)
    prefetch_counters([article, product])
    assert (prefetched_total(article), prefetched_total(product, "sold")) == (1, 2)
    assert (counters.total(">"), elsewhere.total(">")) == (1, 2)


@pytest.mark.parametrize("names", [("title",), ("viws",), ("views", "views__likes")])
def test_a_name_that_is_not_a_counter_raises_field_does_not_exist(names: tuple[str, ...]) -> None:
    with pytest.raises(FieldDoesNotExist, match=r"Article has no counter .*: likes, views"):
        prefetch_counters(Article.objects.bulk_create([Article()]), *names)
    with pytest.raises(FieldDoesNotExist, match=r"Article has no counter .*: likes, views"):
        Article.objects.with_counters(*names)
    with pytest.raises(FieldDoesNotExist, match="its counters are: none"):
        prefetch_counters([Plain()], "views")


def test_dicts_and_unsaved_objects_are_refused() -> None:
    Article.objects.create()
    dicts: Any = Article.objects.values("pk")
    with pytest.raises(TypeError, match=r"not with dict\. Leave out values\(\)"):
        prefetch_counters(dicts)
    with pytest.raises(ValueError, match="Save the Article"):
        prefetch_counters([Article()])


# What stays with an object -------------------------------------------------------------------


def prefetched_total(instance: Any, name: str = "views") -> int | None:
    """Return the total that an object holds of a counter, without a request."""
    _, total = instance._prefetched_objects_cache[name]
    return total


@pytest.fixture
def article(counters: Counters) -> Article:
    """Return an article whose views were prefetched as 3 and have since risen by 100."""
    article = Article.objects.create()
    article.views.incr(3)
    prefetch_counters([article], "views")
    Article.views.counter(article.pk).incr(100)
    return article


def test_conversions_and_comparisons_use_the_prefetched_total(article: Article) -> None:
    counter = article.views
    assert (int(counter), float(counter), str(counter), f"{counter:>3}") == (3, 3.0, "3", "  3")
    assert counter == 3
    assert 2 < counter < 4
    assert bool(counter)
    assert Article.objects.get().views == 103


def test_value_reads_the_server_and_updates_the_prefetched_total(article: Article) -> None:
    assert article.views.value() == 103
    assert int(article.views) == 103


def test_changes_by_the_object_update_the_prefetched_total(article: Article) -> None:
    assert article.views.incr() == 104
    assert int(article.views) == 104
    Article.views.counter(article.pk).incr(100)
    assert article.views.decr(4) == 200
    assert int(article.views) == 200
    article.views.take(50)
    assert int(article.views) == 150
    assert article.views.take(1000) is False
    article.views.incr_later(5)
    assert int(article.views) == 155
    article.views.set(7)
    assert int(article.views) == 7
    article.views.reset()
    assert int(article.views) == 0


def test_an_object_without_prefetched_totals_keeps_none(article: Article) -> None:
    fresh = Article.objects.get()
    assert fresh.views.incr() == 104
    article.views.incr()
    assert int(fresh.views) == 105
    assert not getattr(fresh, "_prefetched_objects_cache", None)


@pytest.mark.parametrize("fields", [None, ["views"], ["title", "views"]], ids=repr)
def test_refresh_from_db_drops_the_prefetched_total(
    article: Article, fields: list[str] | None
) -> None:
    article.refresh_from_db(fields=fields)
    assert int(article.views) == 103


def test_pickles_and_copies_keep_the_prefetched_total(article: Article) -> None:
    for each in (pickle.loads(pickle.dumps(article)), copy.copy(article), copy.deepcopy(article)):
        assert int(each.views) == 3


def test_an_object_saved_under_a_new_key_has_a_new_counter(article: Article) -> None:
    article.pk = None
    article._state.adding = True
    article.save()
    assert int(article.views) == 0


def test_reading_all_fields_sends_no_request(article: Article, proxy: Proxy) -> None:
    with RoundTrips(proxy) as trips:
        article.full_clean(exclude=["author"])
        Article(title="x").full_clean(exclude=["author"])
        assert [getattr(article, each.attname) for each in Article._meta.get_fields()]
        assert f"{article!r} {article.likes!r}".endswith("'likes')")
    assert trips.count == 0


# with_counters -------------------------------------------------------------------------------


def test_a_queryset_reads_counters_when_it_is_evaluated(proxy: Proxy) -> None:
    make(30)
    with RoundTrips(proxy) as trips:
        articles = Article.objects.with_counters("views").order_by("pk").filter(pk__gt=0)
    assert trips.count == 0
    with RoundTrips(proxy) as trips:
        assert [int(each.views) for each in articles[:3]] == [0, 1, 2]
    assert trips.count == 1
    with RoundTrips(proxy) as trips:
        for _ in range(2):
            assert [int(each.views) for each in articles][:3] == [0, 1, 2]
    assert trips.count == 1
    with pytest.raises(KeyError):
        prefetched_total(articles[0], "likes")


def test_every_way_to_evaluate_a_queryset_takes_one_round_trip(proxy: Proxy) -> None:
    make(30)
    articles = Article.objects.with_counters().order_by("pk")
    evaluated: dict[str, Any] = {
        "get": lambda: articles.get(pk=articles[1].pk),
        "first": lambda: articles.all()[1:].first(),
        "index": lambda: articles.all()[1],
        "page": lambda: Paginator(articles.all(), 10).page(1)[1],
        "in_bulk": lambda: list(articles.in_bulk().values())[1],
        "iterator": lambda: next(islice(articles.iterator(), 1, None)),
        "twice": lambda: list(Article.objects.with_counters("likes").with_counters("views"))[1],
        "union": lambda: Article.objects.with_counters().union(Article.objects.all())[1],
        "pickle": lambda: pickle.loads(pickle.dumps(articles.all()))[1],
        "proxy": lambda: ArticleProxy.objects.with_counters().order_by("pk")[1],
    }
    list(articles)
    for way, evaluate in evaluated.items():
        with RoundTrips(proxy) as trips:
            article = evaluate()
            assert (way, int(article.views), int(article.likes)) == (way, 1, 100)
        assert (way, trips.count) == (way, 1)
    with RoundTrips(proxy) as trips:
        assert articles.all().count() == 30
        assert articles.all().exists()
    assert trips.count == 0


def test_an_iterator_reads_counters_chunk_by_chunk(proxy: Proxy) -> None:
    make(30)
    for size, times in ((10, 3), (7, 5), (None, 1)):
        with RoundTrips(proxy) as trips:
            articles = Article.objects.order_by("pk").with_counters("views").iterator(size)
            assert [int(each.views) for each in islice(articles, 5)] == [0, 1, 2, 3, 4]
        assert trips.count == 1
        with RoundTrips(proxy) as trips:
            assert len([int(each.views) for each in articles]) == 25
        assert trips.count == times - 1


def test_deleting_a_queryset_sends_no_request(proxy: Proxy) -> None:
    make(3)
    articles = Article.objects.with_counters()
    assert len(articles) == 3
    with RoundTrips(proxy) as trips:
        assert articles.delete()[0] == 3
        assert list(articles.filter(pk=0)) == []
    assert trips.count == 0
    assert len(articles) == 0
    assert not hasattr(Article.objects, "delete")
    assert articles.delete.alters_data


@committing
async def test_async_iteration_reads_counters_chunk_by_chunk(proxy: Proxy) -> None:
    for number in range(5):
        article = await Article.objects.acreate()
        await article.views.aset(number)
    articles = Article.objects.order_by("pk").with_counters("views")
    with RoundTrips(proxy) as trips:
        assert [int(each.views) async for each in articles.all()] == [0, 1, 2, 3, 4]
    assert trips.count == 1
    with RoundTrips(proxy) as trips:
        assert [int(each.views) async for each in articles.aiterator(2)] == [0, 1, 2, 3, 4]
    assert trips.count == 3
    with RoundTrips(proxy) as trips:
        assert [each.pk async for each in Article.objects.aiterator()]
    assert trips.count == 0


def test_prefetch_related_reads_the_counters_of_related_objects(proxy: Proxy) -> None:
    author = Author.objects.create()
    for number in range(3):
        Article.objects.create(author=author).views.set(number)
    with RoundTrips(proxy) as trips:
        articles = Prefetch("article_set", Article.objects.order_by("pk").with_counters("views"))
        (found,) = Author.objects.prefetch_related(articles)
        assert [int(each.views) for each in found.article_set.all()] == [0, 1, 2]
    assert trips.count == 1


# When the server is away ---------------------------------------------------------------------


def test_querysets_raise_or_fail_open_while_the_server_is_away(
    own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server)
    article = Article.objects.create()
    own_server.kill()
    with pytest.raises(CounterUnavailable):
        prefetch_counters([article])
    articles = Article.objects.with_counters()
    for _ in range(2):
        with pytest.raises(CounterUnavailable):
            list(articles)
    assert articles.exists()
    assert articles.count() == articles.update(title="New") == 1
    assert [each.pk for each in articles.without_counters()] == [article.pk]
    author = Author.objects.create()
    Article.objects.create(author=author)
    author.article_set.with_counters().update(title="Newer")
    assert author.article_set.with_counters().delete()[0] == 1
    assert articles.delete() == (1, {"blog.Article": 1})
    assert not Article.objects.exists()
    article = Article.objects.create()

    configure(on=own_server, FAIL_OPEN=True)
    (article,) = Article.objects.with_counters()
    assert prefetched_total(article) is None
    assert f"{article.views}|{article.views:,}" == "|"
    assert not article.views
    assert (article.views == 0) is (article.views > 0) is False
    with pytest.raises(CounterUnavailable, match="cannot be read"):
        int(article.views)


def test_an_increment_replaces_an_unknown_total(counters: Counters) -> None:
    article = Article.objects.create()
    article.views.keep(None)
    article.views.incr_later(2)
    assert str(article.views) == ""
    article.views.incr()
    assert str(article.views) != ""
