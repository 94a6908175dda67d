"""Counters on models, of every kind of model."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django import VERSION
from django.apps.registry import Apps
from django.core import serializers
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import NotSupportedError, connection, models, transaction
from django.db.models import F, Sum
from django.forms import modelform_factory
from django.template import Context, Engine
from django.test import TestCase, override_settings

from django_nats.counters import Counter, CounterField, Counters, counter_fields
from django_nats.devserver import NatsServer
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

from .conftest import Configure

pytestmark = pytest.mark.django_db

everywhere = pytest.mark.django_db(databases=["default", "other"])
committing = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _counters(counters: Counters) -> None:
    """Every test has the default alias."""


@pytest.fixture
def article() -> Article:
    return Article.objects.create()


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


def test_async(article: Article) -> None:
    asyncio.run(aincr(article))
    assert article.views.value() == 0


def test_names(article: Article) -> None:
    assert article.views.name == ("default", "blog", "article", str(article.pk), "views")
    article.views.incr()
    assert Counter(f"default.blog.article.{article.pk}.views").value() == 1


def test_a_row_that_is_not_loaded(article: Article) -> None:
    assert Article.views.counter(article.pk).incr() == 1
    assert Article.views.counter(str(article.pk)).incr() == 2
    assert article.views.value() == 2
    with pytest.raises(ValueError, match=r"None is no primary key of blog\.Article"):
        Article.views.counter(None)
    with pytest.raises(ValueError, match=r"\(1, 2\) is no primary key of blog\.Article"):
        Article.views.counter((1, 2))


def test_in_a_template(article: Article) -> None:
    article.views.set(1500)
    source = "{{ article.views }} {{ article.views.value }} view{{ article.views|pluralize }}"
    assert render(source, article) == "1500 1500 views"


@pytest.mark.parametrize("operation", ["incr", "decr", "reset", "take", "aincr"])
def test_a_template_changes_nothing(article: Article, operation: str) -> None:
    article.views.set(5)
    assert render(f"{{{{ article.views.{operation} }}}}", article) == ""
    assert article.views.value() == 5


def render(source: str, article: Article) -> str:
    return Engine().from_string(source).render(Context({"article": article}))


@everywhere
def test_databases_share_nothing(article: Article) -> None:
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
def test_what_a_replica_tells_counts_where_it_is_written(article: Article) -> None:
    Article.objects.using("other").create(pk=article.pk)
    with override_settings(DATABASE_ROUTERS=[Replicas()]):
        read = Article.objects.get()
        assert read._state.db == "other"
        read.views.incr()
    assert article.views.value() == 1


def test_an_alias_of_its_own(configure: Configure) -> None:
    Elsewhere = make_model(alias="elsewhere")
    elsewhere = configure("elsewhere")
    Elsewhere.views.counter(1).incr()
    assert elsewhere.total(">") == 1
    assert Counters().total(">") == 0


# Every kind of model -------------------------------------------------------------------------


def test_children_of_an_abstract_model_count_for_themselves() -> None:
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


def test_proxies_share(article: Article) -> None:
    ArticleProxy.objects.get().views.incr()
    assert article.views.value() == 1


def test_composite_keys() -> None:
    ticket = Ticket.objects.create(event=1, seat="2.3")
    other = Ticket.objects.create(event=1, seat="2")
    ticket.scans.incr()
    assert other.scans.value() == 0
    assert Ticket.scans.counter((1, "2.3")).value() == 1
    assert ticket.scans.name == ("default", "blog", "ticket", "1", "2.3", "scans")


@pytest.mark.parametrize("key", ["a.b", "a:b", "*", ">", "日本語", "a b", "x" * 100, "=2E"])
def test_string_keys(key: str) -> None:
    Tag.objects.create(name=key).uses.incr()
    assert Tag.objects.get().uses.value() == 1
    assert Tag.uses.pk_of(Tag.uses.counter_subject(key)) == key


def test_uuid_keys_and_rows_that_borrow_theirs() -> None:
    document = Document.objects.create()
    profile = Profile.objects.create(document=document)
    document.downloads.incr()
    assert Document.downloads.counter(document.pk.hex).value() == 1
    assert Document.downloads.counter(document.pk.int).value() == 1
    assert Document.downloads.pk_of(Document.downloads.counter_subject(document.pk)) == document.pk
    profile.visits.incr(2)
    assert Profile.visits.counter(document.pk).value() == 2
    assert Profile.visits.pk_of(Profile.visits.counter_subject(document.pk)) == document.pk


def test_a_subject_that_outlives_the_models_name() -> None:
    product = Product.objects.create()
    Counter(f"default.shop.item.{product.pk}.sold").incr(7)
    assert product.sold.value() == 7


@pytest.mark.parametrize("subject", ["shop.item", "item{pk}", "{pk}.{pk}", "", "a..{pk}"])
def test_a_subject_without_a_key_for_every_row(subject: str) -> None:
    with pytest.raises(ValueError, match=r"the token \{pk\} once"):
        CounterField(subject=subject)


def test_a_subject_for_every_tenant(article: Article) -> None:
    tenant = "one"
    Tenants = make_model(subject=lambda: f"{tenant}.article.{{pk}}.views")
    Tenants.views.counter(1).incr()
    tenant = "two"
    assert Tenants.views.counter(1).value() == 0
    Tenants.views.counter(1).incr(5)
    assert Counter("default.one.article.1.views").value() == 1
    assert Counter("default.two.article.1.views").value() == 5


def make_model(**options: Any) -> Any:
    """A model that no app has."""
    meta = type("Meta", (), {"app_label": "blog", "apps": Apps()})
    attributes = {"__module__": __name__, "Meta": meta, "views": CounterField(**options)}
    return type("Made", (models.Model,), attributes)


# What instances go through -------------------------------------------------------------------


def test_there_is_no_column_and_no_migration(article: Article) -> None:
    table = connection.introspection.get_table_description(connection.cursor(), "blog_article")
    assert {each.name for each in table} == {"id", "title", "author_id"}
    out = StringIO()
    call_command("makemigrations", "blog", dry_run=True, verbosity=3, stdout=out)
    assert "name='Article'" in out.getvalue()
    assert "views" not in out.getvalue()


def test_an_object_is_pickled_copied_and_loaded_in_part(article: Article) -> None:
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
    with pytest.raises(FieldError, match="'views' cannot be specified"):
        modelform_factory(Article, fields=["views"])


def test_the_field_tells_about_itself() -> None:
    field: Any = Article._meta.get_field("likes")
    assert field is Article.likes
    assert field.verbose_name == "hearts"
    assert str(field) == "blog.Article.likes"
    assert not field.concrete
    assert pickle.loads(pickle.dumps(field)) is field


# Mistakes ------------------------------------------------------------------------------------


def test_a_counter_is_given_no_value(article: Article) -> None:
    given: list[Callable[[], object]] = [
        lambda: Article(views=3),
        lambda: Article.objects.create(views=3),
        lambda: Article.objects.get_or_create(title="x", defaults={"views": 3}),
        lambda: setattr(article, "views", 3),
    ]
    for give in given:
        with pytest.raises(AttributeError, match=r"blog\.Article\.views is a counter, .*incr"):
            give()
    with pytest.raises(TypeError, match=r"use views\.incr\(2\)"):
        article.views += 2  # type: ignore[misc, assignment]
    with pytest.raises(TypeError, match=r"use views\.decr\(2\)"):
        article.views -= 2  # type: ignore[misc, assignment]


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
def test_a_counter_is_nothing_to_query(query: Callable[[Any], Any]) -> None:
    Product.objects.create()
    with pytest.raises(NotSupportedError, match=r"blog\.Article\.views is a counter") as told:
        list(query(Article.objects))
    assert 'CounterField(snapshot="…")' in str(told.value)


@pytest.mark.parametrize("value", [3, F("views") + 1], ids=repr)
def test_a_counter_is_nothing_to_update(value: Any) -> None:
    told = "only concrete fields" if VERSION >= (6, 0) else "is a counter, not a column"
    with pytest.raises((NotSupportedError, FieldError), match=f"views.*{told}"):
        Article.objects.update(views=value)


def test_related_queries_are_told_too() -> None:
    with pytest.raises(NotSupportedError, match=r"blog\.Article\.views is a counter"):
        list(Author.objects.filter(article__views=3))


def test_a_column_to_query_instead_is_named() -> None:
    with pytest.raises(NotSupportedError, match="Use its column 'sold_total'"):
        list(Product.objects.order_by("sold"))


@pytest.mark.parametrize("make", [Article, lambda: Article(pk=5), Document], ids=["", "pk", "uuid"])
def test_a_row_has_to_be_there(make: Callable[[], Any]) -> None:
    made = make()
    with pytest.raises(ValueError, match=r"Save the \w+ before you use its \w+: .*\.counter\(pk\)"):
        made.downloads if isinstance(made, Document) else made.views
    assert not hasattr(made, "views")
    assert not hasattr(made, "downloads")
    assert dict(inspect.getmembers(made))["pk"] == made.pk


def test_a_key_that_is_too_long() -> None:
    tag = Tag.objects.create(name="x" * 1100)
    with pytest.raises(ValueError, match="1024 is the most"):
        tag.uses.incr()
    tag.delete()
    assert not Tag.objects.exists()


# Transactions --------------------------------------------------------------------------------


@committing
def test_an_increment_waits_for_the_commit(article: Article) -> None:
    with transaction.atomic():
        assert article.views.incr(3, on_commit=True) is None
        assert article.views.value() == 0
    assert article.views.value() == 3
    assert article.views.incr(on_commit=True) is None  # in no transaction: at once
    assert article.views.value() == 4


@committing
def test_a_rollback_drops_it(article: Article) -> None:
    with transaction.atomic():
        article.views.incr(on_commit=True)
        transaction.set_rollback(True)
    assert article.views.value() == 0


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_it_waits_for_the_database_of_its_object() -> None:
    article = Article.objects.using("other").create()
    with transaction.atomic(using="other"):
        article.views.incr(on_commit=True)
        assert article.views.value() == 0
    assert article.views.value() == 1


@committing
def test_async_it_waits_for_the_transaction_around(article: Article) -> None:
    async def like() -> None:
        assert await article.likes.aincr(2, on_commit=True) is None

    with transaction.atomic():
        async_to_sync(like)()
        assert article.likes.value() == 0
    assert article.likes.value() == 2


@committing
async def test_async_without_one_it_is_done_at_once() -> None:
    article = await Article.objects.acreate()
    assert await article.likes.aincr(on_commit=True) is None
    assert await article.likes.avalue() == 1


@committing
def test_a_failure_after_the_commit_is_logged(
    own_server: NatsServer, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2, DEADLINE=0.2)
    article = Article.objects.create()
    own_server.kill()
    with transaction.atomic():
        article.views.incr(on_commit=True)
    assert "was not changed" in caplog.text


def test_what_cannot_be_added_is_said_at_once(article: Article) -> None:
    with pytest.raises(TypeError, match=r"must be an integer, not 1\.5"):
        article.views.incr(1.5, on_commit=True)  # type: ignore[call-overload]


# Deleting ------------------------------------------------------------------------------------


def left(counters: Counters) -> set[str]:
    return {str(name) for name in counters.matching(">")}


def test_counters_go_with_their_row_on_commit(article: Article, counters: Counters) -> None:
    kept = Article.objects.create()
    for each in (article, kept):
        each.views.incr()
        each.likes.incr()
    with TestCase.captureOnCommitCallbacks() as hooks:
        article.delete()
    assert len(left(counters)) == 4
    (hook,) = hooks
    hook()
    assert left(counters) == {
        f"default.blog.article.{kept.pk}.{name}" for name in ("views", "likes")
    }


@pytest.mark.parametrize("through", ["queryset", "proxy", "cascade", "_base_manager"])
def test_many_are_deleted(counters: Counters, through: str) -> None:
    author = Author.objects.create()
    articles = [Article.objects.create(author=author) for _ in range(200)]
    for each in articles:
        each.views.incr()
    with TestCase.captureOnCommitCallbacks(execute=True) as hooks:
        if through == "cascade":
            author.delete()
        else:
            manager = {
                "queryset": Article.objects,
                "proxy": ArticleProxy.objects,
                "_base_manager": Article._base_manager,
            }[through]
            manager.all().delete()
    assert len(hooks) == 1
    assert left(counters) == set()


def test_a_parent_that_stays_keeps_its_counters(counters: Counters) -> None:
    restaurant = Restaurant.objects.create()
    restaurant.visits.incr()
    restaurant.meals.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        restaurant.delete(keep_parents=True)
    assert left(counters) == {"default.blog.place.1.visits"}


@pytest.mark.parametrize("model", [Diner, DinerProxy, Restaurant, Place])
def test_parents_and_children_go_together(counters: Counters, model: type[models.Model]) -> None:
    diner = Diner.objects.create()
    diner.visits.incr()
    diner.meals.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        model._base_manager.get().delete()
    assert left(counters) == set()


def test_composite_keys_go(counters: Counters) -> None:
    ticket = Ticket.objects.create(event=1, seat="2.3")
    ticket.scans.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        ticket.delete()
    assert left(counters) == set()


@everywhere
def test_another_databases_row_keeps_its_own(counters: Counters) -> None:
    here = Article.objects.create()
    there = Article.objects.using("other").create(pk=here.pk)
    here.views.incr()
    there.views.incr()
    with TestCase.captureOnCommitCallbacks(using="other", execute=True):
        there.delete()
    assert left(counters) == {f"default.blog.article.{here.pk}.views"}


@committing
def test_a_deletion_that_is_rolled_back_purges_nothing(counters: Counters) -> None:
    kept, gone = Article.objects.create(), Article.objects.create()
    names = {f"default.blog.article.{kept.pk}.views"}
    kept.views.incr()
    gone.views.incr()
    with transaction.atomic():
        with transaction.atomic():
            Article.objects.filter(pk=kept.pk).delete()
            transaction.set_rollback(True)
        Article.objects.filter(pk=gone.pk).delete()
    assert left(counters) == names

    with transaction.atomic():
        Article.objects.create().delete()
        with transaction.atomic():
            kept.delete()
            transaction.set_rollback(True)
    assert left(counters) == names


@committing
@pytest.mark.parametrize("away", [False, True], ids=["", "away"])
def test_a_row_takes_what_is_pending_with_it(
    own_server: NatsServer, configure: Configure, away: bool
) -> None:
    counters = configure(on=own_server, CONNECT_TIMEOUT=0.2, FLUSH_INTERVAL=3000)
    article, kept = Article.objects.create(), Article.objects.create()
    for each in (article, kept):
        each.views.incr_later(5)
    if away:
        own_server.kill()
    with transaction.atomic():
        article.delete()
        assert counters.pending.counters == 2
    assert (counters.pending.counters, counters.pending.total) == (1, 5)
    if away:
        own_server.start()
    counters.flush()
    assert left(counters) == {f"default.blog.article.{kept.pk}.views"}


@committing
def test_a_server_that_is_away_does_not_break_the_deletion(
    own_server: NatsServer, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2, REQUEST_TIMEOUT=0.2)
    article = Article.objects.create()
    article.views.incr()
    own_server.kill()
    with caplog.at_level(logging.WARNING, "django_nats"):
        article.delete()
    assert not Article.objects.exists()
    (told,) = [each for each in caplog.messages if "prune" in each]
    assert "Not all of 2 counters of deleted rows are purged" in told


@committing
def test_settings_that_are_wrong_do_not_break_the_deletion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    article = Article.objects.create()
    with override_settings(NATS_COUNTERS={}):
        article.delete()
    assert "need the setting NATS_COUNTERS" in caplog.text


# For those who go through all rows -----------------------------------------------------------


def test_the_fields_of_all_models() -> None:
    found = counter_fields()
    assert {str(field) for field in found if field.model._meta.app_label == "blog"} == {
        *("blog.Article.views", "blog.Article.likes", "blog.Page.hits", "blog.Post.hits"),
        *("blog.Place.visits", "blog.Restaurant.meals", "blog.Ticket.scans", "blog.Product.sold"),
        *("blog.Document.downloads", "blog.Tag.uses", "blog.Profile.visits"),
    }
    assert [field.name for field in counter_fields(Diner)] == ["meals", "visits"]
    assert [field.name for field in counter_fields(ArticleProxy)] == ["views", "likes"]
    assert counter_fields(Plain) == []
    assert Counted.hits.origin is Counted


@everywhere
def test_keys_are_found_in_subjects(counters: Counters) -> None:
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
    assert Article.views.pk_of("home") is None
    assert Ticket.scans.pk_of("default.blog.ticket.1.scans") is None
    assert Product.sold.counter_filter() == "default.shop.item.*.sold"
    assert Ticket.scans.counter_filter(using="a.b") == "a=2Eb.blog.ticket.*.*.scans"
    assert Document.downloads.pk_of("default.blog.document.no-uuid.downloads") is None
