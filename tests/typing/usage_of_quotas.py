"""Calls of the public API of quotas, as users write them, with the type of every result."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

from django_nats.client.transport.session import Session
from django_nats.limits import Quota, Usage
from tests.blog.models import Article

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


def limit_of(article: Article) -> int | None:
    return None


async def awaited_limit_of(article: Article) -> int | None:
    return None


def declarations() -> None:
    Quota("exports", limit=5, per="month")
    Quota("exports", limit=None, per="day", tz="Europe/Berlin", alias="limits", readable=True)
    Quota("exports", limit=limit_of, per="week", tz=timezone.utc)
    Quota("exports", limit=awaited_limit_of, per="hour")


def one_quota(article: Article) -> None:
    quota = Quota("exports", limit=5, per="month")
    assert_type(quota.name, str)
    assert_type(quota.per, str)
    assert_type(quota.alias, str)
    assert_type(quota.fail_open, bool)
    assert_type(quota.session, Session)
    usage = quota.use(article, n=2)
    assert_type(usage, Usage)
    assert_type(usage.allowed, bool)
    assert_type(usage.used, int)
    assert_type(usage.limit, int | None)
    assert_type(usage.remaining, int | None)
    assert_type(usage.reset_at, datetime)
    assert_type(usage.id, str)
    if not usage:
        assert_type(quota.refund(usage.id), bool)
    assert_type(quota.usage("acme"), Usage)
    assert_type(quota.remaining(7), int | None)
    assert_type(quota.reset(article), None)
    assert_type(quota.reset_at(), datetime)


async def one_quota_in_async_code(article: Article) -> None:
    quota = Quota("exports", limit=5, per="month")
    assert_type(await quota.ause(article, n=2), Usage)
    assert_type(await quota.ausage(article), Usage)
    assert_type(await quota.aremaining(article), int | None)
    assert_type(await quota.arefund("id"), bool)
    assert_type(await quota.areset(article), None)
    assert_type(await quota.areset_at(), datetime)
