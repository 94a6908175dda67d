"""Packages that show a model to other programs."""

from __future__ import annotations

import json
from typing import Any

import django_tables2 as tables
import graphene
import pytest
from django_filters import FilterSet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.generators import SchemaGenerator
from graphene_django import DjangoObjectType
from ninja import ModelSchema
from rest_framework import serializers, viewsets
from rest_framework.filters import OrderingFilter
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIRequestFactory

from django_nats.counters import Counters
from tests.neighbours.models import Story

pytestmark = pytest.mark.django_db


class StorySerializer(serializers.ModelSerializer[Story]):
    class Meta:
        model = Story
        fields = ["title", "views"]


class StoryViewSet(viewsets.ReadOnlyModelViewSet[Story]):
    """No ordering_fields: the filter takes what the serializer shows."""

    queryset = Story.objects.order_by("pk")
    serializer_class = StorySerializer
    filter_backends = [OrderingFilter, DjangoFilterBackend]
    filterset_fields = "__all__"


def listed(query: str, view: type[Any] = StoryViewSet) -> Any:
    response = view.as_view({"get": "list"})(APIRequestFactory().get(f"/?{query}"))
    assert response.status_code == 200, response.data
    return json.loads(response.render().content)


@pytest.fixture
def stories(counters: Counters) -> list[Story]:
    made = [Story.objects.create(title=each) for each in ("On engines", "On looms")]
    made[1].views.incr(3)
    return made


def test_rest_framework_shows_a_counter_as_an_integer(stories: list[Story]) -> None:
    shown = [{"title": "On engines", "views": 0}, {"title": "On looms", "views": 3}]
    assert listed("") == shown
    assert all(type(each["views"]) is int for each in listed(""))


@pytest.mark.parametrize("ordering", ["views", "-views", "-views,title", "views__gt"])
def test_rest_framework_does_not_order_by_a_counter(stories: list[Story], ordering: str) -> None:
    assert [each["title"] for each in listed(f"ordering={ordering}")] == ["On engines", "On looms"]
    assert [each["title"] for each in listed("ordering=-title")] == ["On looms", "On engines"]


def test_ordering_by_all_fields_leaves_counters_out(stories: list[Story]) -> None:
    class All(StoryViewSet):
        ordering_fields = "__all__"

    assert [each["title"] for each in listed("ordering=-views", All)] == ["On engines", "On looms"]


def test_django_filter_does_not_filter_by_a_counter(stories: list[Story]) -> None:
    class StoryFilter(FilterSet):
        class Meta:
            model = Story
            fields = "__all__"

    assert set(StoryFilter.base_filters) == {"title", "summary"}
    assert len(listed("views=3")) == 2


def test_django_filter_refuses_a_filter_by_a_counter() -> None:
    with pytest.raises(AssertionError, match="unrecognized field type CounterField"):
        type(
            "ByViews",
            (FilterSet,),
            {"Meta": type("Meta", (), {"model": Story, "fields": ["views"]})},
        )


def test_drf_spectacular_calls_a_counter_an_integer(stories: list[Story]) -> None:
    router = SimpleRouter()
    router.register("stories", StoryViewSet)
    schema = SchemaGenerator(patterns=router.urls).get_schema(request=None, public=True)
    properties = schema["components"]["schemas"]["Story"]["properties"]
    assert properties["views"] == {
        "type": "integer",
        "description": "Since it was published",
        "readOnly": True,
    }
    parameters = schema["paths"]["/stories/"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {"ordering", "title", "summary"}


def test_ninja_leaves_counters_out_unless_they_are_declared(stories: list[Story]) -> None:
    class Plain(ModelSchema):
        class Meta:
            model = Story
            fields = "__all__"

    class Counted(ModelSchema):
        views: int

        class Meta:
            model = Story
            fields = ["title"]

    assert set(Plain.model_fields) == {"id", "title", "summary"}
    assert Counted.from_orm(stories[1]).dict() == {"title": "On looms", "views": 3}


def test_tables_leave_counters_out_unless_they_are_named(stories: list[Story]) -> None:
    class Plain(tables.Table):
        class Meta:
            model = Story

    class Counted(tables.Table):
        views = tables.Column(orderable=False)

        class Meta:
            model = Story
            fields = ["title", "views"]

    assert set(Plain.base_columns) == {"id", "title", "summary"}
    table = Counted(Story.objects.order_by("pk"), order_by="-views")
    assert [list(map(str, row)) for row in table.rows] == [["On engines", "0"], ["On looms", "3"]]


def test_graphene_leaves_counters_out_unless_they_are_declared(stories: list[Story]) -> None:
    class Plain(DjangoObjectType):
        class Meta:
            model = Story
            fields = "__all__"

    class Counted(DjangoObjectType):
        views = graphene.Int()

        class Meta:
            model = Story
            fields = ["title"]

    class Query(graphene.ObjectType):
        stories = graphene.List(Counted)

        def resolve_stories(self, info: object) -> Any:
            return Story.objects.order_by("pk")

    assert set(Plain._meta.fields) == {"id", "title", "summary"}
    result = graphene.Schema(query=Query).execute("{ stories { title views } }")
    assert not result.errors
    assert result.data == {
        "stories": [{"title": "On engines", "views": 0}, {"title": "On looms", "views": 3}]
    }
