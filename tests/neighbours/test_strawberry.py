"""GraphQL types of strawberry-django, which reads annotations as they are: not postponed ones."""

from typing import Any

import pytest
import strawberry
import strawberry_django

from django_nats.counters import Counters
from tests.neighbours.models import Story

pytestmark = pytest.mark.django_db


@strawberry_django.type(Story, fields="__all__")
class Plain:
    pass


@strawberry_django.type(Story)
class Counted:
    title: strawberry.auto
    views: int


@strawberry.type
class Query:
    stories: list[Counted] = strawberry_django.field()


@strawberry_django.type(Story)
class Automatic:
    views: strawberry.auto


@strawberry.type
class AutomaticQuery:
    stories: list[Automatic] = strawberry_django.field()


def test_strawberry_leaves_counters_out_of_all_fields() -> None:
    definition: Any = Plain
    names = {each.name for each in definition.__strawberry_definition__.fields}
    assert names == {"id", "title", "summary"}


def test_strawberry_shows_a_counter_that_is_annotated_as_an_integer(counters: Counters) -> None:
    Story.objects.create(title="On engines").views.incr(3)
    result = strawberry.Schema(Query).execute_sync("{ stories { title views } }")
    assert not result.errors
    assert result.data == {"stories": [{"title": "On engines", "views": 3}]}


def test_strawberry_needs_a_type_in_place_of_auto() -> None:
    with pytest.raises(TypeError, match=r"Story\.views' has not been implemented"):
        strawberry.Schema(AutomaticQuery)
