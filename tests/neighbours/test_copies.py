"""Packages that make objects: of another class, from files, or for tests."""

from __future__ import annotations

import factory
import pytest
from import_export import fields
from import_export.resources import ModelResource, modelresource_factory
from model_bakery import baker

from django_nats.counters import Counters, prefetch_counters
from tests.neighbours.models import Engraving, Story, Work

pytestmark = pytest.mark.django_db


def test_polymorphic_children_share_the_counters_of_their_parent(counters: Counters) -> None:
    engraving = Engraving.objects.create(title="Waves")
    engraving.views.incr(3)
    engraving.prints.incr()
    (work,) = Work.objects.all()
    prefetch_counters([work])
    assert (type(work), work.views, work.prints) == (Engraving, 3, 1)
    assert Work.objects.non_polymorphic().get().views.value() == 3


def test_import_export_imports_the_file_that_it_has_exported() -> None:
    resource: ModelResource = modelresource_factory(Story)()
    Story.objects.create(title="On engines")
    data = resource.export()
    assert data.headers == ["id", "title", "summary"]
    Story.objects.all().delete()
    assert not resource.import_data(data, raise_errors=True).has_errors()
    assert Story.objects.get().title == "On engines"


def test_import_export_exports_a_counter_by_a_method(counters: Counters) -> None:
    class Counted(ModelResource):
        views = fields.Field(attribute="views", readonly=True)

        class Meta:
            model = Story

    Story.objects.create(title="On engines").views.incr(3)
    assert "3" in Counted().export().csv


def test_model_bakery_fills_columns_only() -> None:
    assert baker.make(Story, _fill_optional=True).summary
    assert baker.prepare(Story, _fill_optional=True).summary


def test_factory_boy_counts_after_the_row_is_created(counters: Counters) -> None:
    class StoryFactory(factory.django.DjangoModelFactory[Story]):
        title = factory.Faker("sentence")

        class Meta:
            model = Story
            skip_postgeneration_save = True

        @factory.post_generation
        def views(self: Story, create: bool, extracted: int | None, **kwargs: object) -> None:
            if create and extracted:
                self.views.set(extracted)

    assert StoryFactory.create(views=3).views.value() == 3
    assert StoryFactory.create().views.value() == 0
    assert StoryFactory.build().title
