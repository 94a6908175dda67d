"""What manage.py check says about counter fields."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib import admin
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from django_nats.checks import fields
from django_nats.counters.admin import CounterAdminMixin
from tests.blog.models import Article, Product

pytestmark = pytest.mark.usefixtures("_settings")


@pytest.fixture
def _settings() -> Iterator[None]:
    with override_settings(NATS_COUNTERS={"default": {}}):
        yield


def check(identity: str, *, deploy: bool = False) -> list[CheckMessage]:
    found = run_checks(tags=["models", "nats"], include_deployment_checks=deploy)
    return [each for each in found if each.id == f"django_nats.{identity}"]


def test_a_sound_project_is_told_nothing() -> None:
    assert run_checks(tags=["models", "nats"]) == []


def test_an_alias_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Article.views, "alias", "elsewhere")
    (error,) = check("E003")
    assert error.obj is Article.views
    assert error.msg == 'NATS_COUNTERS has no alias "elsewhere".'
    with override_settings(NATS_COUNTERS={"elsewhere": {}}):
        assert Article.views not in [each.obj for each in check("E003")]


@pytest.mark.parametrize("settings", [{}, None], ids=repr)
def test_no_aliases_at_all(settings: object) -> None:
    with override_settings(NATS_COUNTERS=settings):
        assert Article.views in [each.obj for each in check("E003")]


@pytest.mark.parametrize("snapshot", ["nowhere", "title", "id", "likes", "author"])
def test_a_snapshot_that_is_no_column_of_integers(
    monkeypatch: pytest.MonkeyPatch, snapshot: str
) -> None:
    monkeypatch.setattr(Article.views, "snapshot", snapshot)
    (error,) = check("E004")
    assert error.obj is Article.views
    assert error.msg == f"Its snapshot {snapshot!r} is no integer column of blog.Article."


def test_two_fields_with_the_same_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Product.sold, "subject", "blog.article.{pk}.views")
    (error,) = check("E005")
    assert error.obj is Product.sold
    assert "the same counters as blog.Article.views" in error.msg
    monkeypatch.setattr(Product.sold, "alias", "elsewhere")
    assert check("E005") == []
    monkeypatch.setattr(Product.sold, "alias", "default")
    monkeypatch.setattr(Product.sold, "subject", lambda: "blog.article.{pk}.views")
    assert check("E005") == []


def test_a_renamed_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
        assert "Its model was called story once" in warnings[0].msg
        assert "subject='blog.story.{pk}.views'" in str(warnings[0].hint)
        monkeypatch.setattr(Article.views, "subject", "blog.article.{pk}.views")
        assert [each.obj for each in check("W008", deploy=True)] == [Article.likes]
    for module in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[module]


def test_apps_without_migrations_were_not_renamed() -> None:
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
def test_an_admin_that_queries_a_counter(option: str, value: list[object]) -> None:
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
    ],
)
def test_an_admin_that_sorts_by_a_counter(
    base: type, options: dict[str, object], named: list[str]
) -> None:
    listed = ["title", "views", "author__article__views", str]
    site = admin.AdminSite("sorts")
    site.register(Article, type("Sorts", (base,), {"list_display": listed, **options}))
    assert [each.msg.split("'")[1] for each in check("W009")] == named
    site.unregister(Article)


def test_projects_without_the_admin() -> None:
    site = admin.AdminSite("unused")
    site.register(Article, type("Unused", (admin.ModelAdmin,), {"list_filter": ["views"]}))
    with override_settings(INSTALLED_APPS=["django_nats", "tests.blog"]):
        assert list(fields.check_admin_queries()) == []
    assert list(fields.check_admin_queries()) != []
    site.unregister(Article)
