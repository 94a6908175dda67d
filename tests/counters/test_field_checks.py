"""What manage.py check says about counter fields."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

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
