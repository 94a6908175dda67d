"""The system checks of counter fields."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.checks import CheckMessage, run_checks
from django.db import models
from django.test import override_settings

from django_nats.checks import fields
from django_nats.counters import CounterField
from django_nats.counters.admin import CounterAdminMixin
from tests.blog.models import Article, Page, Place, Product, Restaurant

pytestmark = pytest.mark.usefixtures("_settings")


@pytest.fixture
def _settings() -> Iterator[None]:
    with override_settings(NATS_COUNTERS={"default": {}}):
        yield


def check(identity: str, *, deploy: bool = False) -> list[CheckMessage]:
    found = run_checks(tags=["models", "nats"], include_deployment_checks=deploy)
    return [each for each in found if each.id == f"django_nats.{identity}"]


def test_a_correct_project_gets_no_messages() -> None:
    assert run_checks(tags=["models", "nats"]) == []


def test_a_missing_alias_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Article.views, "alias", "elsewhere")
    (error,) = check("E003")
    assert error.obj is Article.views
    assert error.msg == 'NATS_COUNTERS has no alias "elsewhere".'
    with override_settings(NATS_COUNTERS={"elsewhere": {}}):
        assert Article.views not in [each.obj for each in check("E003")]


@pytest.mark.parametrize("settings", [{}, None], ids=repr)
def test_a_setting_without_aliases_is_an_error(settings: object) -> None:
    with override_settings(NATS_COUNTERS=settings):
        assert Article.views in [each.obj for each in check("E003")]


@pytest.mark.parametrize("snapshot", ["nowhere", "title", "id", "likes", "author"])
def test_a_snapshot_that_is_not_an_integer_column_is_an_error(
    monkeypatch: pytest.MonkeyPatch, snapshot: str
) -> None:
    monkeypatch.setattr(Article.views, "snapshot", snapshot)
    (error,) = check("E004")
    assert error.obj is Article.views
    assert error.msg == f"Its snapshot {snapshot!r} is not an integer column of blog.Article."


def test_two_fields_with_the_same_counters_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Product.sold, "subject", "blog.article.{pk}.views")
    (error,) = check("E005")
    assert error.obj is Product.sold
    assert "the same counters as blog.Article.views" in error.msg
    monkeypatch.setattr(Product.sold, "alias", "elsewhere")
    assert check("E005") == []
    monkeypatch.setattr(Product.sold, "alias", "default")
    monkeypatch.setattr(Product.sold, "subject", lambda: "blog.article.{pk}.views")
    assert check("E005") == []


@pytest.fixture
def family() -> Iterator[Callable[..., type[models.Model]]]:
    """Yield a function that makes a model of the app ``blog``, which the test then leaves again."""
    registered = apps.all_models["blog"]
    before = dict(registered)

    def make(
        name: str, *bases: type, abstract: bool = False, **members: object
    ) -> type[models.Model]:
        meta = type("Meta", (), {"app_label": "blog", "abstract": abstract})
        return type(name, bases, {"__module__": __name__, "Meta": meta, **members})

    yield make
    registered.clear()
    registered.update(before)
    apps.clear_cache()


@pytest.mark.parametrize("field", [CounterField(), models.IntegerField()], ids=["", "column"])
def test_a_counter_with_the_name_of_another_parents_field_is_an_error(
    family: Callable[..., type[models.Model]], field: models.Field[Any, Any]
) -> None:
    number = models.AutoField(primary_key=True)
    Museum = family("Museum", models.Model, number=number, visits=field)
    Gallery = family("Gallery", Place, Museum)
    Shop = family("Shop", Museum, Place)
    errors = check("E007")
    assert [each.obj for each in errors] == [Gallery, Shop]
    assert errors[0].msg == (
        "The field 'visits' from model blog.Place clashes with the field of the same name from "
        "model blog.Museum."
    )


def test_a_counter_of_an_abstract_model_with_the_name_of_a_parents_is_an_error(
    family: Callable[..., type[models.Model]],
) -> None:
    Numbered = family("Numbered", models.Model, abstract=True, hits=CounterField())
    Chapter = family("Chapter", Numbered, Page)
    (error,) = check("E007")
    assert error.obj is Chapter
    assert error.msg == (
        "The field 'hits' from model blog.Chapter clashes with the field of the same name from "
        "model blog.Page."
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Fan", {"related_name": "views"}),
        ("Fan", {"related_query_name": "views"}),
        ("Views", {}),
    ],
)
def test_a_relation_whose_reverse_has_the_name_of_a_counter_is_an_error(
    family: Callable[..., type[models.Model]], name: str, options: dict[str, Any]
) -> None:
    Shown = family("Shown", models.Model, views=CounterField())
    Child = family("Child", Shown)
    for target in (Shown, Child):
        key: Any = models.ForeignKey(target, models.CASCADE, **options)
        relating = family(name, models.Model, shown=key)
        (error,) = check("E007")
        assert error.obj is relating._meta.get_field("shown")
        assert error.msg == "Its reverse has the name of the counter blog.Shown.views."
        del apps.all_models["blog"][name.lower()]
        apps.clear_cache()
    hidden: Any = models.ForeignKey(Shown, models.CASCADE, related_name="+")
    family("Views", models.Model, shown=hidden)
    assert check("E007") == []


@pytest.mark.django_db(databases="__all__")  # the check of a JSONField asks all databases
def test_a_primary_key_that_holds_several_values_is_an_error(
    family: Callable[..., type[models.Model]],
) -> None:
    Doc = family("Doc", models.Model, id=models.JSONField(primary_key=True), views=CounterField())
    Page = family(
        "Sheet",
        models.Model,
        doc=models.OneToOneField(Doc, models.CASCADE, primary_key=True),
        views=CounterField(),
    )
    errors = check("E009")
    assert [each.obj for each in errors] == [Doc.views, Page.views]  # type: ignore[attr-defined]
    assert errors[1].msg.startswith("The primary key 'doc' of blog.Sheet holds several values")


def test_parents_may_share_the_counter_of_their_parent(
    family: Callable[..., type[models.Model]],
) -> None:
    Cafe = family("Cafe", Place)
    family("Bistro", Cafe, Restaurant)
    assert check("E007") == []


def test_a_renamed_model_without_a_subject_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "renaming_migrations"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "0001_initial.py").write_text(
        "from django.db import migrations as m\n"
        "class Migration(m.Migration):\n"
        "    operations = [m.RenameModel('Story', 'Essay'), m.RenameModel('Item', 'Product')]\n"
    )
    (package / "0002_again.py").write_text(
        "from django.db import migrations as m\n"
        "class Migration(m.Migration):\n"
        "    operations = [m.RenameModel('Essay', 'Article')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(MIGRATION_MODULES={"blog": package.name}):
        assert check("W008") == []
        warnings = check("W008", deploy=True)
        assert {each.obj for each in warnings} == {Article.views, Article.likes}
        assert "Its model was called story before" in warnings[0].msg
        assert "subject='blog.story.{pk}.views'" in str(warnings[0].hint)
        monkeypatch.setattr(Article.views, "subject", "blog.article.{pk}.views")
        assert [each.obj for each in check("W008", deploy=True)] == [Article.likes]
    for module in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[module]


def test_models_without_migrations_get_no_warning_about_renaming() -> None:
    assert check("W008", deploy=True) == []
    with override_settings(MIGRATION_MODULES={"blog": None}):
        assert check("W008", deploy=True) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("list_filter", ["views"]),
        ("list_filter", [("views", admin.AllValuesFieldListFilter)]),
        ("list_filter", ["author__article__views"]),
        ("search_fields", ["title", "^views__icontains"]),
        ("ordering", ["-views"]),
    ],
)
def test_an_admin_that_queries_a_counter_is_an_error(option: str, value: list[object]) -> None:
    site = admin.AdminSite("queries")
    site.register(Article, type("Queries", (admin.ModelAdmin,), {option: value}))
    (error,) = check("E006")
    assert error.msg.startswith(f"Its {option} names ")
    assert "views" in error.msg
    assert error.obj is type(site._registry[Article])
    site.unregister(Article)
    site.register(Article, type("Queries", (admin.ModelAdmin,), {option: ()}))
    assert check("E006") == []


@pytest.mark.parametrize(
    ("base", "options", "named"),
    [
        (admin.ModelAdmin, {}, ["views", "author__article__views"]),
        (admin.ModelAdmin, {"sortable_by": ["title", "views"]}, ["views"]),
        (admin.ModelAdmin, {"sortable_by": ()}, []),
        (type("Mixed", (CounterAdminMixin, admin.ModelAdmin), {}), {"sortable_by": ["views"]}, []),
        (type("Mixed", (CounterAdminMixin, admin.ModelAdmin), {}), {}, []),
    ],
)
def test_an_admin_that_sorts_by_a_counter_is_a_warning(
    base: type, options: dict[str, object], named: list[str]
) -> None:
    listed = ["title", "views", "author__article__views", str]
    site = admin.AdminSite("sorts")
    site.register(Article, type("Sorts", (base,), {"list_display": listed, **options}))
    assert [each.msg.split("'")[1] for each in check("W009")] == named
    site.unregister(Article)


def test_projects_without_the_admin_skip_its_checks() -> None:
    site = admin.AdminSite("unused")
    site.register(Article, type("Unused", (admin.ModelAdmin,), {"list_filter": ["views"]}))
    with override_settings(INSTALLED_APPS=["django_nats", "tests.blog"]):
        assert list(fields.check_admin_queries()) == []
    assert list(fields.check_admin_queries()) != []
    site.unregister(Article)
