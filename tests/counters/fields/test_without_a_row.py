"""Objects that are not saved, or deleted, have no counters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from django.db import models
from django.template import Context, Engine

from tests.blog.models import Article, Diner, DinerProxy, Document, Restaurant, Ticket

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("make", [Article, lambda: Article(pk=5), Document], ids=["", "pk", "uuid"])
def test_an_unsaved_object_has_no_counters(make: Callable[[], Any]) -> None:
    made = make()
    with pytest.raises(ValueError, match=r"Save the \w+ before you use its \w+: .*\.counter\(pk\)"):
        made.downloads if isinstance(made, Document) else made.views
    assert not hasattr(made, "views")
    assert not hasattr(made, "downloads")
    assert dict(inspect.getmembers(made))["pk"] == made.pk


def test_a_template_shows_nothing_for_an_object_without_a_row(article: Article) -> None:
    template = Engine().from_string(
        "[{{ article.views }}{% if article.views > 0 %}x{% endif %}{{ article.views.value }}]"
    )

    def shown(article: Article) -> str:
        return template.render(Context({"article": article}))

    assert shown(Article()) == "[]"
    assert shown(Article(pk=5)) == "[]"
    article.delete()
    assert shown(article) == "[]"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Ticket.objects.create(event=1, seat="2"), "scans"),
        (lambda: Diner.objects.create(number=77), "meals"),
        (lambda: Diner.objects.create(number=77), "visits"),
        (lambda: Restaurant.objects.create(), "visits"),
        (lambda: DinerProxy.objects.create(number=77), "visits"),
    ],
)
def test_a_deleted_object_has_no_counters(make: Callable[[], models.Model], name: str) -> None:
    made = make()
    getattr(made, name).incr()
    made.delete()
    with pytest.raises(ValueError, match=f"before you use its {name}"):
        getattr(made, name)
    assert not hasattr(made, name)
    field: Any = made._meta.get_field(name)
    assert field.value_from_object(made) is None
