"""Counters in Django REST framework's serializers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rest_framework")

from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from django_nats.counters import Counters, prefetch_counters
from django_nats.devserver import NatsServer
from tests.blog.models import Article
from tests.support.proxy import Proxy

from .conftest import Configure

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.django_db


class ArticleSerializer(serializers.ModelSerializer[Article]):
    views = serializers.IntegerField(read_only=True)
    views_now = serializers.IntegerField(source="views.value", read_only=True)

    class Meta:
        model = Article
        fields = ["title", "views", "views_now"]


def rendered(articles: Iterable[Article]) -> Any:
    return json.loads(JSONRenderer().render(ArticleSerializer(articles, many=True).data))


def test_a_counter_is_an_integer(counters: Counters) -> None:
    article = Article.objects.create()
    article.views.incr(3)
    assert rendered([article]) == [{"title": "On engines", "views": 3, "views_now": 3}]


def test_what_was_prefetched_is_used_but_for_value(
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


def test_input_for_a_counter_is_dropped() -> None:
    serializer = ArticleSerializer(data={"title": "x", "views": 5, "views_now": 5})
    serializer.is_valid(raise_exception=True)
    assert serializer.validated_data == {"title": "x"}


def test_it_need_not_be_declared(counters: Counters) -> None:
    class Everything(serializers.ModelSerializer[Article]):
        class Meta:
            model = Article
            fields = "__all__"

    article = Article.objects.create()
    article.likes.incr(2)
    prefetch_counters([article], "likes")
    Article.likes.counter(article.pk).incr()
    expected = {"id": article.pk, "title": "On engines", "author": None, "views": 0, "likes": 2}
    assert Everything(article).data == expected
    serializer = Everything(data={"title": "x", "author": None, "views": 5})
    serializer.is_valid(raise_exception=True)
    assert serializer.validated_data == {"title": "x", "author": None}


def test_away_under_fail_open_value_is_null(own_server: NatsServer, configure: Configure) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2, FAIL_OPEN=True)
    own_server.kill()

    class Now(serializers.Serializer[Article]):
        views = serializers.IntegerField(source="views.value", read_only=True)

    assert Now(Article.objects.create()).data == {"views": None}
