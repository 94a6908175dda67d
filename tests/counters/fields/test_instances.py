"""Counter fields on every kind of model."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django import VERSION
from django.apps.registry import Apps
from django.core import serializers
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import NotSupportedError, connection, models
from django.db.models import F, Sum
from django.forms import modelform_factory
from django.template import Context, Engine
from django.test import override_settings

from django_nats.counters import Counter, CounterField, Counters, counter_fields
from django_nats.keys import counter_subject
from tests.blog.models import (
    Article,
    ArticleProxy,
    Author,
    Counted,
    Diner,
    DinerProxy,
    Document,
    Page,
    Place,
    Plain,
    Post,
    Product,
    Profile,
    Restaurant,
    Tag,
    Ticket,
)
from tests.counters.conftest import Configure
from tests.counters.fields.conftest import everywhere

pytestmark = pytest.mark.django_db


# A counter for every row ---------------------------------------------------------------------


def test_a_field_is_a_counter_on_instances(article: Article) -> None:
    assert isinstance(article.views, Counter)
    assert article.views.value() == 0
    assert article.views.incr() == 1
    assert article.views.incr(4) == 5
    assert article.views.decr() == 4
    assert int(article.views) == article.views.value() == 4
    assert article.views == Article.objects.get().views == 4
    assert f"{article.views} {article.likes}" == "4 0"


async def aincr(article: Article) -> None:
    assert await article.views.aincr() == 1
    assert await article.views.avalue() == 1
    assert await article.views.atake() is True


def test_a_field_has_async_operations(article: Article) -> None:
    asyncio.run(aincr(article))
    assert article.views.value() == 0


def test_the_name_of_a_counter_is_made_of_its_row(article: Article) -> None:
    assert article.views.name == ("default", "blog", "article", str(article.pk), "views")
    article.views.incr()
    assert Counter(f"default.blog.article.{article.pk}.views").value() == 1


def test_a_counter_is_found_by_primary_key(article: Article) -> None:
    assert Article.views.counter(article.pk).incr() == 1
    assert Article.views.counter(str(article.pk)).incr() == 2
    assert article.views.value() == 2
    with pytest.raises(ValueError, match=r"None is not a primary key of blog\.Article"):
        Article.views.counter(None)
    with pytest.raises(ValueError, match=r"\(1, 2\) is not a primary key of blog\.Article"):
        Article.views.counter((1, 2))


def test_a_template_shows_the_total(article: Article) -> None:
    article.views.set(1500)
    source = "{{ article.views }} {{ article.views.value }} view{{ article.views|pluralize }}"
    assert render(source, article) == "1500 1500 views"


@pytest.mark.parametrize("operation", ["incr", "decr", "reset", "take", "aincr"])
def test_a_template_cannot_change_a_counter(article: Article, operation: str) -> None:
    article.views.set(5)
    assert render(f"{{{{ article.views.{operation} }}}}", article) == ""
    assert article.views.value() == 5


def render(source: str, article: Article) -> str:
    return Engine().from_string(source).render(Context({"article": article}))


@everywhere
def test_databases_do_not_share_counters(article: Article) -> None:
    other = Article.objects.using("other").create(pk=article.pk)
    article.views.incr()
    assert other.views.value() == 0
    other.views.incr(10)
    assert Article.views.counter(article.pk).value() == 1
    assert Article.views.counter(article.pk, using="other").value() == 10


class Replicas:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


@everywhere
def test_a_row_read_from_a_replica_counts_for_the_database_of_writes(article: Article) -> None:
    Article.objects.using("other").create(pk=article.pk)
    with override_settings(DATABASE_ROUTERS=[Replicas()]):
        read = Article.objects.get()
        assert read._state.db == "other"
        read.views.incr()
    assert article.views.value() == 1


def test_a_field_may_have_another_alias(configure: Configure) -> None:
    Elsewhere = make_model(alias="elsewhere")
    elsewhere = configure("elsewhere")
    Elsewhere.views.counter(1).incr()
    assert elsewhere.total(">") == 1
    assert Counters().total(">") == 0


# Every kind of model -------------------------------------------------------------------------


def test_children_of_an_abstract_model_count_separately() -> None:
    page, post = Page.objects.create(), Post.objects.create()
    assert page.pk == post.pk
    page.hits.incr()
    assert (page.hits.value(), post.hits.value()) == (1, 0)


def test_children_share_their_parents_counters() -> None:
    diner = Diner.objects.create(number=77)
    place, restaurant = Place.objects.get(), Restaurant.objects.get()
    assert diner.pk != place.pk
    place.visits.incr()
    assert restaurant.visits.incr() == 2
    assert diner.visits.incr() == 3
    diner.meals.incr(8)
    assert restaurant.meals.value() == 8
    assert DinerProxy.objects.get().visits.incr() == 4


def test_proxies_share_their_models_counters(article: Article) -> None:
    ArticleProxy.objects.get().views.incr()
    assert article.views.value() == 1


def test_composite_keys_have_separate_counters() -> None:
    ticket = Ticket.objects.create(event=1, seat="2.3")
    other = Ticket.objects.create(event=1, seat="2")
    ticket.scans.incr()
    assert other.scans.value() == 0
    assert Ticket.scans.counter((1, "2.3")).value() == 1
    assert ticket.scans.name == ("default", "blog", "ticket", "1", "2.3", "scans")


@pytest.mark.parametrize("key", ["a.b", "a:b", "*", ">", "日本語", "a b", "x" * 100, "=2E"])
def test_any_text_may_be_a_key(key: str) -> None:
    Tag.objects.create(name=key).uses.incr()
    assert Tag.objects.get().uses.value() == 1
    assert Tag.uses.pk_of(Tag.uses.counter_subject(key)) == key


def test_uuid_keys_and_one_to_one_keys_identify_counters() -> None:
    document = Document.objects.create()
    profile = Profile.objects.create(document=document)
    document.downloads.incr()
    assert Document.downloads.counter(document.pk.hex).value() == 1
    assert Document.downloads.counter(document.pk.int).value() == 1
    assert Document.downloads.pk_of(Document.downloads.counter_subject(document.pk)) == document.pk
    profile.visits.incr(2)
    assert Profile.visits.counter(document.pk).value() == 2
    assert Profile.visits.pk_of(Profile.visits.counter_subject(document.pk)) == document.pk


def test_a_given_subject_is_used_in_place_of_the_models_name() -> None:
    product = Product.objects.create()
    Counter(f"default.shop.item.{product.pk}.sold").incr(7)
    assert product.sold.value() == 7


@pytest.mark.parametrize("subject", ["shop.item", "item{pk}", "{pk}.{pk}", "", "a..{pk}"])
def test_a_subject_must_contain_the_key_exactly_once(subject: str) -> None:
    with pytest.raises(ValueError, match=r"the token \{pk\} exactly once"):
        CounterField(subject=subject)


def test_a_subject_may_be_a_function_of_the_tenant(article: Article) -> None:
    tenant = "one"
    Tenants = make_model(subject=lambda: f"{tenant}.article.{{pk}}.views")
    Tenants.views.counter(1).incr()
    tenant = "two"
    assert Tenants.views.counter(1).value() == 0
    Tenants.views.counter(1).incr(5)
    assert Counter("default.one.article.1.views").value() == 1
    assert Counter("default.two.article.1.views").value() == 5


def make_model(**options: Any) -> Any:
    """Return a model with a counter field that is in no app registry."""
    meta = type("Meta", (), {"app_label": "blog", "apps": Apps()})
    attributes = {"__module__": __name__, "Meta": meta, "views": CounterField(**options)}
    return type("Made", (models.Model,), attributes)


# Copies, fixtures and forms ------------------------------------------------------------------


def test_a_field_has_no_column_and_no_migration(article: Article) -> None:
    table = connection.introspection.get_table_description(connection.cursor(), "blog_article")
    assert {each.name for each in table} == {"id", "title", "author_id"}
    out = StringIO()
    call_command("makemigrations", "blog", dry_run=True, verbosity=3, stdout=out)
    assert "name='Article'" in out.getvalue()
    assert "views" not in out.getvalue()


def test_pickled_copied_and_deferred_objects_have_their_counters(article: Article) -> None:
    article.views.incr()
    for each in (
        pickle.loads(pickle.dumps(article)),
        copy.copy(article),
        copy.deepcopy(article),
        Article.objects.only("title").get(),
        Article.objects.only("title", "views").get(),
        Article.objects.defer("views").get(),
        Article.objects.select_related("author").get(),
        pickle.loads(pickle.dumps(Article.objects.all()))[0],
        pickle.loads(pickle.dumps(article.views))._instance,
    ):
        assert each.views.value() == 1
    article.full_clean(exclude=["author"])
    article.refresh_from_db(fields=["views"])
    assert article.views.incr() == 2


def test_fixtures_and_forms_leave_counters_out(article: Article) -> None:
    data = serializers.serialize("json", [article])
    assert "views" not in data
    (restored,) = serializers.deserialize("json", data)
    restored.save()
    assert "views" not in modelform_factory(Article, fields="__all__").base_fields
    with pytest.raises(FieldError, match=r"Unknown field\(s\) \(views\)"):
        modelform_factory(Article, fields=["views"])


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_a_fixture_from_when_a_counter_was_a_column_can_be_loaded(
    tmp_path: Path, article: Article, kind: str
) -> None:
    """``--ignorenonexistent`` leaves the value out."""
    data = serializers.serialize(kind, [article])
    if kind == "json":
        (row,) = json.loads(data)
        row["fields"]["views"] = 12
        data = json.dumps([row])
    else:
        field = '<field name="views" type="IntegerField">12</field></object>'
        data = data.replace("</object>", field)
    fixture = tmp_path / f"old.{kind}"
    fixture.write_text(data)
    article.views.incr()
    with pytest.raises(Exception, match=r"blog\.Article\.views is a counter"):
        call_command("loaddata", fixture, verbosity=0)
    Article.objects.update(title="Changed")
    call_command("loaddata", fixture, ignorenonexistent=True, verbosity=0)
    assert Article.objects.get().title == "On engines"
    assert article.views.value() == 1


def test_a_field_is_in_its_models_meta() -> None:
    field: Any = Article._meta.get_field("likes")
    assert field is Article.likes
    assert field.verbose_name == "hearts"
    assert str(field) == "blog.Article.likes"
    assert not field.concrete
    assert pickle.loads(pickle.dumps(field)) is field


# Mistakes ------------------------------------------------------------------------------------


def test_assigning_to_a_counter_raises_an_error(article: Article) -> None:
    given: list[Callable[[], object]] = [
        lambda: Article(views=3),
        lambda: Article.objects.create(views=3),
        lambda: Article.objects.get_or_create(title="x", defaults={"views": 3}),
        lambda: setattr(article, "views", 3),
    ]
    for give in given:
        with pytest.raises(AttributeError, match=r"blog\.Article\.views is a counter, .*incr"):
            give()
    with pytest.raises(TypeError, match=r"Use views\.incr\(2\)"):
        article.views += 2  # type: ignore[misc, assignment]
    with pytest.raises(TypeError, match=r"Use views\.decr\(2\)"):
        article.views -= 2  # type: ignore[misc, assignment]
    with pytest.raises(TypeError, match=r"Write int\(counter\) \+ … .* use incr\(\)"):
        article.views + 1  # type: ignore[operator]


@pytest.mark.parametrize(
    "query",
    [
        lambda objects: objects.filter(views=3),
        lambda objects: objects.filter(views__gt=3),
        lambda objects: objects.exclude(views=3),
        lambda objects: objects.order_by("views"),
        lambda objects: objects.order_by("-views"),
        lambda objects: objects.order_by(F("views").desc()),
        lambda objects: objects.values("views"),
        lambda objects: objects.values_list("views", flat=True),
        lambda objects: objects.annotate(more=F("views") + 1),
        lambda objects: [objects.aggregate(Sum("views"))],
    ],
)
def test_querying_a_counter_raises_not_supported_error(query: Callable[[Any], Any]) -> None:
    Product.objects.create()
    with pytest.raises(NotSupportedError, match=r"blog\.Article\.views is a counter") as caught:
        list(query(Article.objects))
    assert 'CounterField(snapshot="…")' in str(caught.value)


@pytest.mark.parametrize("value", [3, F("views") + 1], ids=repr)
def test_updating_a_counter_in_a_queryset_raises_an_error(value: Any) -> None:
    message = "only concrete fields" if VERSION >= (6, 0) else "is a counter, not a column"
    with pytest.raises((NotSupportedError, FieldError), match=f"views.*{message}"):
        Article.objects.update(views=value)


def test_querying_a_counter_through_a_relation_raises_not_supported_error() -> None:
    with pytest.raises(NotSupportedError, match=r"blog\.Article\.views is a counter"):
        list(Author.objects.filter(article__views=3))


def test_the_error_names_the_snapshot_column_to_query() -> None:
    with pytest.raises(NotSupportedError, match="Use its column 'sold_total'"):
        list(Product.objects.order_by("sold"))


def test_a_key_that_is_too_long_is_refused_but_deletable() -> None:
    tag = Tag.objects.create(name="x" * 1100)
    with pytest.raises(ValueError, match="more than 1024"):
        tag.uses.incr()
    tag.delete()
    assert not Tag.objects.exists()


# All fields and all rows ---------------------------------------------------------------------


def test_counter_fields_lists_the_fields_of_all_models() -> None:
    found = counter_fields()
    assert {str(field) for field in found if field.model._meta.app_label == "blog"} == {
        *("blog.Article.views", "blog.Article.likes", "blog.Page.hits", "blog.Post.hits"),
        *("blog.Place.visits", "blog.Restaurant.meals", "blog.Ticket.scans", "blog.Product.sold"),
        *("blog.Document.downloads", "blog.Tag.uses", "blog.Profile.visits"),
        *("blog.Book.loans", "blog.Letter.answers", "blog.Volume.readers"),
    }
    assert [field.name for field in counter_fields(Diner)] == ["meals", "visits"]
    assert [field.name for field in counter_fields(ArticleProxy)] == ["views", "likes"]
    assert counter_fields(Plain) == []
    assert Counted.hits.origin is Counted


@everywhere
def test_pk_of_returns_the_key_in_a_subject(counters: Counters) -> None:
    Article.objects.create(pk=1).views.incr()
    Article.objects.create(pk=2).views.incr(2)
    Article.likes.counter(2).incr()
    Article.objects.using("other").create(pk=3).views.incr()
    Ticket.objects.create(event=1, seat="a.b").scans.incr()
    Counter("default.blog.article.x.views").incr()

    def keys(field: CounterField, using: str = "default") -> list[Any]:
        subjects = counters.matching(field.counter_filter(using=using))
        names = [name if isinstance(name, tuple) else (name,) for name in subjects]
        return [field.pk_of(counter_subject(*name), using=using) for name in names]

    assert sorted(keys(Article.views), key=str) == [1, 2, None]
    assert keys(Article.views, "other") == [3]
    assert keys(Article.likes) == [2]
    assert keys(Ticket.scans) == [(1, "a.b")]
    assert Article.likes.pk_of("default.blog.article.1.views") is None
    assert Article.views.pk_of("default.blog.article.1.views", using="other") is None
    assert Article.views.pk_of("default.blog.article.1") is None
    assert Article.views.pk_of("default.blog.article.01.views") is None
    assert Article.views.pk_of("home") is None
    assert Ticket.scans.pk_of("default.blog.ticket.1.scans") is None
    assert Product.sold.counter_filter() == "default.shop.item.*.sold"
    assert Ticket.scans.counter_filter(using="a.b") == "a=2Eb.blog.ticket.*.*.scans"
    assert Document.downloads.pk_of("default.blog.document.no-uuid.downloads") is None
