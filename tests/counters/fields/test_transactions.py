"""Increments with on_commit=True."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from django_nats.devserver import NatsServer
from tests.blog.models import (
    Article,
)
from tests.counters.conftest import Configure
from tests.counters.fields.conftest import committing

pytestmark = pytest.mark.django_db


@committing
def test_an_increment_waits_for_the_commit(article: Article) -> None:
    with transaction.atomic():
        assert article.views.incr(3, on_commit=True) is None
        assert article.views.value() == 0
    assert article.views.value() == 3
    assert article.views.incr(on_commit=True) is None  # outside a transaction, at once
    assert article.views.value() == 4


@committing
def test_a_rollback_drops_the_increment(article: Article) -> None:
    with transaction.atomic():
        article.views.incr(on_commit=True)
        transaction.set_rollback(True)
    assert article.views.value() == 0


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_an_increment_waits_for_the_database_of_its_object() -> None:
    article = Article.objects.using("other").create()
    with transaction.atomic(using="other"):
        article.views.incr(on_commit=True)
        assert article.views.value() == 0
    assert article.views.value() == 1


@committing
def test_an_async_increment_waits_for_the_surrounding_transaction(article: Article) -> None:
    async def like() -> None:
        assert await article.likes.aincr(2, on_commit=True) is None

    with transaction.atomic():
        async_to_sync(like)()
        assert article.likes.value() == 0
    assert article.likes.value() == 2


@committing
async def test_an_async_increment_without_a_transaction_is_made_at_once() -> None:
    article = await Article.objects.acreate()
    assert await article.likes.aincr(on_commit=True) is None
    assert await article.likes.avalue() == 1


@committing
def test_a_failure_after_the_commit_is_logged(
    own_server: NatsServer, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(on=own_server, DEADLINE=0.2)
    article = Article.objects.create()
    own_server.kill()
    with transaction.atomic():
        article.views.incr(on_commit=True)
    assert "was not changed" in caplog.text


def test_a_wrong_amount_raises_type_error_at_once(article: Article) -> None:
    with pytest.raises(TypeError, match=r"must be an integer, not 1\.5"):
        article.views.incr(1.5, on_commit=True)  # type: ignore[call-overload]
