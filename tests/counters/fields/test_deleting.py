"""Counters are deleted with their rows."""

from __future__ import annotations

import logging

import pytest
from django.db import models, transaction
from django.test import TestCase, override_settings

from django_nats.counters import Counters
from django_nats.counters.deletion import _PurgingCounters
from django_nats.devserver import NatsServer
from tests.blog.models import (
    Article,
    ArticleProxy,
    Author,
    Diner,
    DinerProxy,
    Place,
    Restaurant,
    Ticket,
)
from tests.counters.conftest import Configure
from tests.counters.fields.conftest import committing, everywhere

pytestmark = pytest.mark.django_db


def left(counters: Counters) -> set[str]:
    return {str(name) for name in counters.matching(">")}


def test_counters_are_deleted_with_their_row_on_commit(
    article: Article, counters: Counters
) -> None:
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
def test_counters_of_many_deleted_rows_are_purged_in_one_hook(
    counters: Counters, through: str
) -> None:
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


@pytest.mark.parametrize("before", ["another row", "another queryset", "the same row again"])
def test_a_captured_deletion_purges_its_own_counters_only(counters: Counters, before: str) -> None:
    article, other = Article.objects.create(), Article.objects.create()
    kept = f"default.blog.article.{other.pk}.views"
    for each in (article, other):
        each.views.incr()
    if before == "another row":
        other.delete()
    elif before == "another queryset":
        Article.objects.filter(pk=other.pk).delete()
    else:
        pk = article.pk
        article.delete()
        article.pk = pk
        article.save()
    with TestCase.captureOnCommitCallbacks(execute=True) as hooks:
        article.delete()
    assert len(hooks) == 1
    assert left(counters) == {kept}


def test_deletions_captured_one_after_another_purge_their_own_counters(counters: Counters) -> None:
    articles = [Article.objects.create() for _ in range(4)]
    for each in articles:
        each.views.incr()
    names = [f"default.blog.article.{each.pk}.views" for each in articles]
    articles[0].delete()
    for number in (1, 2):
        with TestCase.captureOnCommitCallbacks(execute=True):
            articles[number].delete()
        assert left(counters) == {names[0], *names[number + 1 :]}


@committing
def test_deletions_in_a_loop_are_purged_together(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    purges = []
    purge = _PurgingCounters.purge
    monkeypatch.setattr(
        _PurgingCounters,
        "purge",
        lambda self, subjects: (purges.append(len(subjects)), purge(self, subjects)),
    )
    articles = [Article.objects.create() for _ in range(20)]
    for each in articles:
        each.views.incr()
    with transaction.atomic():
        for each in articles:
            each.delete()
    assert purges == [40]
    assert left(counters) == set()


def test_a_kept_parent_keeps_its_counters(counters: Counters) -> None:
    restaurant = Restaurant.objects.create()
    restaurant.visits.incr()
    restaurant.meals.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        restaurant.delete(keep_parents=True)
    assert left(counters) == {"default.blog.place.1.visits"}


@pytest.mark.parametrize("model", [Diner, DinerProxy, Restaurant, Place])
def test_counters_of_parents_and_children_are_deleted_together(
    counters: Counters, model: type[models.Model]
) -> None:
    diner = Diner.objects.create()
    diner.visits.incr()
    diner.meals.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        model._base_manager.get().delete()
    assert left(counters) == set()


@everywhere
def test_a_signal_that_names_no_database_is_about_the_one_of_the_object(
    counters: Counters,
) -> None:
    """As sent by packages that delete rows in their own way."""
    here = Article.objects.create()
    there = Article.objects.using("other").create(pk=here.pk)
    here.views.incr()
    there.views.incr()
    with TestCase.captureOnCommitCallbacks(using="other", execute=True):
        models.signals.post_delete.send(sender=Article, instance=there)
    assert left(counters) == {f"default.blog.article.{here.pk}.views"}


@committing
def test_a_row_created_again_in_the_transaction_that_deletes_it_begins_at_0(
    counters: Counters,
) -> None:
    article = Article.objects.create()
    article.views.incr(5)
    with transaction.atomic():
        pk = article.pk
        article.delete()
        again = Article.objects.create(pk=pk)
        assert again.views.incr() == 6
        again.views.incr(2, on_commit=True)
    assert again.views == 2


def test_counters_of_composite_keys_are_deleted(counters: Counters) -> None:
    ticket = Ticket.objects.create(event=1, seat="2.3")
    ticket.scans.incr()
    with TestCase.captureOnCommitCallbacks(execute=True):
        ticket.delete()
    assert left(counters) == set()


@everywhere
def test_a_row_of_another_database_keeps_its_counters(counters: Counters) -> None:
    here = Article.objects.create()
    there = Article.objects.using("other").create(pk=here.pk)
    here.views.incr()
    there.views.incr()
    with TestCase.captureOnCommitCallbacks(using="other", execute=True):
        there.delete()
    assert left(counters) == {f"default.blog.article.{here.pk}.views"}


@committing
def test_a_rolled_back_deletion_purges_nothing(counters: Counters) -> None:
    kept, deleted = Article.objects.create(), Article.objects.create()
    names = {f"default.blog.article.{kept.pk}.views"}
    kept.views.incr()
    deleted.views.incr()
    with transaction.atomic():
        with transaction.atomic():
            Article.objects.filter(pk=kept.pk).delete()
            transaction.set_rollback(True)
        Article.objects.filter(pk=deleted.pk).delete()
    assert left(counters) == names

    with transaction.atomic():
        Article.objects.create().delete()
        with transaction.atomic():
            kept.delete()
            transaction.set_rollback(True)
    assert left(counters) == names


@committing
@pytest.mark.parametrize("away", [False, True], ids=["", "away"])
def test_pending_increments_of_a_deleted_row_are_dropped(
    own_server: NatsServer, configure: Configure, away: bool
) -> None:
    counters = configure(on=own_server, FLUSH_INTERVAL=3000)
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
def test_an_unreachable_server_does_not_break_the_deletion(
    own_server: NatsServer, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(on=own_server)
    article = Article.objects.create()
    article.views.incr()
    own_server.kill()
    with caplog.at_level(logging.WARNING, "django_nats"):
        article.delete()
    assert not Article.objects.exists()
    (warning,) = [each for each in caplog.messages if "prune" in each]
    assert "Not all counters of deleted rows could be purged (2 counters)" in warning


@committing
def test_wrong_settings_do_not_break_the_deletion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    article = Article.objects.create()
    with override_settings(NATS_COUNTERS={}):
        article.delete()
    assert "need the setting NATS_COUNTERS" in caplog.text
