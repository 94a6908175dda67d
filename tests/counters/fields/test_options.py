"""What a model's options say of its counters, and how models inherit them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import models
from django.db.models.options import Options

from django_nats.counters import CounterField, counter_fields
from tests.blog.models import (
    Article,
    ArticleProxy,
    Counted,
    Diner,
    DinerProxy,
    Page,
    Place,
    Plain,
    Post,
    Restaurant,
)

MODELS = [Article, ArticleProxy, Counted, Diner, DinerProxy, Page, Place, Post, Restaurant]


def make(name: str, *bases: type, abstract: bool = False, **attributes: Any) -> Any:
    """Return a model that is in no app registry, or an abstract model."""
    own = {"app_label": "blog", "apps": Apps(), "abstract": abstract}
    meta = type("Meta", (), {**own, **attributes.pop("meta", {})})
    members = {"__module__": __name__, "Meta": meta, **attributes}
    return type(name, bases or (models.Model,), members)


def test_deletions_of_the_whole_model_purge_a_counter_that_a_proxy_declares() -> None:
    """Django sends post_delete for the class that the row is deleted through, and for it only."""
    concrete = make("Concrete")
    before = make("Before", concrete, meta={"proxy": True})
    counting = make("Counting", before, meta={"proxy": True}, views=CounterField())
    after = make("After", concrete, meta={"proxy": True})
    child = make("Child", concrete)
    for each in (concrete, before, counting, after):
        assert models.signals.post_delete.has_listeners(each), each
    assert not models.signals.post_delete.has_listeners(child)  # it is sent for the parent as well


# Apart from the fields -----------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "listed",
    [
        lambda options: options.fields,
        lambda options: options.concrete_fields,
        lambda options: options.local_fields,
        lambda options: options.private_fields,
        lambda options: options.get_fields() if not options.abstract else (),
        lambda options: options.get_fields(include_hidden=True) if not options.abstract else (),
        lambda options: options.get_fields(include_parents=False) if not options.abstract else (),
    ],
    ids=["fields", "concrete", "local", "private", "get", "hidden", "without parents"],
)
def test_no_list_of_fields_contains_a_counter(
    model: type[models.Model], listed: Callable[[Options[Any]], Any]
) -> None:
    assert not [each for each in listed(model._meta) if isinstance(each, CounterField)]


@pytest.mark.parametrize(
    ("model", "name", "field"),
    [
        (Article, "likes", Article.likes),
        (ArticleProxy, "likes", Article.likes),
        (Counted, "hits", Counted.hits),
        (Page, "hits", Page.hits),
        (Place, "visits", Place.visits),
        (Restaurant, "visits", Place.visits),
        (Diner, "meals", Restaurant.meals),
        (DinerProxy, "visits", Place.visits),
    ],
)
def test_get_field_finds_a_counter(
    model: type[models.Model], name: str, field: CounterField
) -> None:
    assert model._meta.get_field(name) is field
    assert getattr(model, name) is field
    apps.clear_cache()
    assert model._meta.get_field(name) is field


def test_get_field_finds_other_fields_as_well() -> None:
    assert Article._meta.get_field("title").concrete
    assert Article._meta.get_field("author_id").is_relation
    assert Diner._meta.get_field("place_ptr").is_relation
    with pytest.raises(FieldDoesNotExist, match="Article has no field named 'viws'"):
        Article._meta.get_field("viws")
    with pytest.raises(FieldDoesNotExist):
        Plain._meta.get_field("views")


def test_a_counter_is_a_property_for_tools() -> None:
    assert isinstance(Article.views, property)
    assert Article._meta._property_names >= {"views", "likes", "pk"}
    assert Article.views.fget.__doc__ == "Since it was published"
    assert Article.likes.fget.__doc__ is None


def test_a_counter_can_be_added_to_a_finished_model() -> None:
    Made = make("Made")
    with pytest.raises(FieldDoesNotExist):
        Made._meta.get_field("views")
    Made.add_to_class("views", CounterField())
    assert Made._meta.get_field("views") is Made.views


def test_django_reports_an_ordering_by_a_counter() -> None:
    Made = make("Made", views=CounterField(), meta={"ordering": ["-views"]})
    assert [each.id for each in Made.check()] == ["models.E015"]


# Inheritance ---------------------------------------------------------------------------------


def test_each_child_of_an_abstract_model_has_a_field_of_its_own() -> None:
    assert {Page.hits.model, Post.hits.model, Counted.hits.model} == {Page, Post, Counted}
    Between = make("Between", Counted, abstract=True)
    Made = make("Made", Between)
    assert Made.hits.origin is Made
    assert [each.name for each in counter_fields(Made)] == ["hits"]


def test_a_child_of_an_abstract_model_can_remove_or_replace_a_counter() -> None:
    Removed = make("Removed", Counted, hits=None)
    assert counter_fields(Removed) == []
    Replaced = make("Replaced", Counted, hits=models.IntegerField())
    assert counter_fields(Replaced) == []
    assert Replaced._meta.get_field("hits").concrete
    assert Replaced(hits=3).hits == 3
    Mixin = type("Mixin", (), {"hits": None})
    assert counter_fields(make("Mixed", Mixin, Counted)) == []
    Other = make("Other", Counted, hits=CounterField(alias="other"))
    assert [each.alias for each in counter_fields(Other)] == ["other"]


@pytest.mark.parametrize(
    ("base", "name", "field"),
    [
        (Place, "visits", CounterField()),
        (Place, "visits", models.IntegerField()),
        (Diner, "visits", CounterField()),
        (Article, "title", CounterField()),
    ],
)
def test_a_child_cannot_have_a_field_of_its_parents_name(
    base: type, name: str, field: models.Field[Any, Any]
) -> None:
    members: Any = {name: field}
    with pytest.raises(FieldError, match=f"Local field '{name}' in class 'Made' clashes"):
        make("Made", base, **members)


def test_a_child_can_hide_the_counter_of_its_parent() -> None:
    assert counter_fields(make("Made", Place, visits=None)) == []


# Copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        CounterField(),
        CounterField("hearts", help_text="Since then", alias="other"),
        CounterField(subject="shop.{pk}.sold", snapshot="sold_total"),
    ],
)
def test_a_clone_has_the_same_arguments(field: CounterField) -> None:
    clone = field.clone()
    assert type(clone) is CounterField
    for name in ("verbose_name", "help_text", "subject", "alias", "snapshot", "editable", "blank"):
        assert getattr(clone, name) == getattr(field, name)


def test_deconstruct_names_the_class_and_the_arguments_that_were_given() -> None:
    path = "django_nats.counters.CounterField"
    assert CounterField().deconstruct()[1:] == (path, [], {})
    assert Article.likes.deconstruct() == ("likes", path, [], {"verbose_name": "hearts"})
    subject = "shop.{pk}.sold"
    field = CounterField(subject=subject, snapshot="sold_total", alias="eu", help_text="Now")
    given = {"subject": subject, "snapshot": "sold_total", "alias": "eu", "help_text": "Now"}
    assert field.deconstruct()[1:] == (path, [], given)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copied_field_keeps_its_state(copied: Callable[[CounterField], CounterField]) -> None:
    found = copied(Article.views)
    assert found == Article.views
    assert (found is Article.views, found.origin) == (False, Article)


def test_a_pickled_field_is_found_by_its_model_or_keeps_its_state() -> None:
    assert pickle.loads(pickle.dumps(Article.views)) is Article.views
    assert pickle.loads(pickle.dumps(Diner.visits)) is Place.visits
    assert pickle.loads(pickle.dumps(CounterField(alias="other"))).alias == "other"
