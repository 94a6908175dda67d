"""Counters in Django REST framework's serializers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rest_framework")

from rest_framework import serializers
from rest_framework.filters import OrderingFilter
from rest_framework.generics import ListAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from django_nats.counters import Counters, prefetch_counters
from django_nats.devserver import NatsServer
from tests.blog.models import Article
from tests.support.proxy import Proxy

from .conftest import Configure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.test import RequestFactory

pytestmark = pytest.mark.django_db


class ArticleSerializer(serializers.ModelSerializer[Article]):
    views = serializers.IntegerField(read_only=True)
    views_now = serializers.IntegerField(source="views.value", read_only=True)

    class Meta:
        model = Article
        fields = ["title", "views", "views_now"]


def rendered(articles: Iterable[Article]) -> Any:
    return json.loads(JSONRenderer().render(ArticleSerializer(articles, many=True).data))


def test_a_counter_is_rendered_as_an_integer(counters: Counters) -> None:
    article = Article.objects.create()
    article.views.incr(3)
    assert rendered([article]) == [{"title": "On engines", "views": 3, "views_now": 3}]


def test_prefetched_totals_are_used_except_for_value(
    server: NatsServer, configure: Configure, counters: Counters
) -> None:
    articles = Article.objects.bulk_create([Article() for _ in range(5)])
    with Proxy(server.port) as proxy:
        configure(LOCATION=proxy.url)
        prefetch_counters(articles, "views")
        Article.views.counter(articles[0].pk).incr()
        before = proxy.round_trips
        (first, *_) = rendered(articles)
        assert proxy.round_trips - before == 5
    assert (first["views"], first["views_now"]) == (0, 1)


def test_input_for_a_counter_is_ignored() -> None:
    serializer = ArticleSerializer(data={"title": "x", "views": 5, "views_now": 5})
    serializer.is_valid(raise_exception=True)
    assert serializer.validated_data == {"title": "x"}


class Undeclared(serializers.ModelSerializer[Article]):
    class Meta:
        model = Article
        fields = ["title", "likes"]


def test_a_counter_that_a_serializer_names_need_not_be_declared(counters: Counters) -> None:
    article = Article.objects.create()
    article.likes.incr(2)
    prefetch_counters([article], "likes")
    Article.likes.counter(article.pk).incr()
    expected = {"title": "On engines", "likes": 2}
    data = Undeclared(article).data
    assert data == expected
    assert json.loads(JSONRenderer().render(data)) == expected
    assert Undeclared(Article(title="New")).data == {"title": "New"}
    serializer = Undeclared(data={"title": "x", "likes": 5})
    serializer.is_valid(raise_exception=True)
    assert serializer.validated_data == {"title": "x"}


def test_all_fields_of_a_model_are_its_columns() -> None:
    class Everything(serializers.ModelSerializer[Article]):
        class Meta:
            model = Article
            fields = "__all__"

    assert set(Everything().fields) == {"id", "title", "author"}


def test_a_counter_is_no_ordering_that_visitors_can_ask_for(rf: RequestFactory) -> None:
    class Articles(ListAPIView[Article]):
        queryset = Article.objects.order_by("pk")
        serializer_class = Undeclared
        filter_backends = [OrderingFilter]

    Article.objects.create(title="b")
    Article.objects.create(title="a")
    for ordering, expected in (("title", "ab"), ("likes", "ba"), ("-likes,title", "ab")):
        request = Request(rf.get("/", {"ordering": ordering}))
        view = Articles(request=request, format_kwarg=None)
        found = view.filter_queryset(view.get_queryset())
        assert "".join(each.title for each in found) == expected


def test_value_is_null_under_fail_open_while_the_server_is_away(
    own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server, FAIL_OPEN=True)
    own_server.kill()

    class Now(serializers.Serializer[Article]):
        views = serializers.IntegerField(source="views.value", read_only=True)

    article = Article.objects.create(title="x")
    assert Now(article).data == {"views": None}
    rendered = JSONRenderer().render(Undeclared(article).data)
    assert json.loads(rendered) == {"title": "x", "likes": None}
