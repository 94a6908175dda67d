"""``manage.py nats limits show`` and ``reset`` for quotas."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User

from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import Limit, Quota
from tests.limits.conftest import delete_streams
from tests.management.conftest import Declare, Nats
from tests.servers import request

FailingNats = Callable[..., tuple[str, str]]

__all__ = ["delete_streams"]


def test_show_says_what_a_quota_is(counters: Counters, nats: Nats) -> None:
    quota = Quota("exports", limit=1000, per="month", tz=ZoneInfo("Europe/Berlin"))

    assert nats("limits", "show", quota.name) == (
        "exports\n"
        "  limit      1000 per month\n"
        "  time zone  Europe/Berlin\n"
        "  alias      default\n"
        f"  stream     {counters.settings.stream.stream}_QUOTAS_LONG\n"
    )


@pytest.mark.parametrize("readable", [True, False])
def test_show_says_what_a_tenant_has_used(counters: Counters, nats: Nats, readable: bool) -> None:
    quota = Quota("exports", limit=1000, per="year", readable=readable)
    quota.use(User(pk=5), 30)
    year = f"{quota.reset_at():%Y}"

    output = nats("limits", "show", "exports", "auth.user.5")
    assert output.endswith(f"  30 used, 970 left, until {year}-01-01 00:00-06:00\n")
    assert "  0 used, 1,000 left, until " in nats("limits", "show", "exports", "auth.user.6")


@pytest.mark.parametrize("limit", [None, lambda tenant: tenant.limit])
def test_show_does_not_say_what_is_left_if_that_is_not_known(
    counters: Counters, nats: Nats, limit: Any
) -> None:
    quota = Quota("exports", limit=None, per="year")
    quota.use("acme", 3)
    shown = Quota("exports", limit=limit, per="year")

    output = nats("limits", "show", shown.name, "acme")

    assert re.search(r"^  limit      (None|by .*<lambda>\(\)) per year$", output, re.MULTILINE)
    assert re.search(r"^  3 used, until \d{4}-01-01", output, re.MULTILINE)


def test_looking_at_a_quota_creates_no_stream(
    counters: Counters, server: NatsServer, nats: Nats
) -> None:
    quota = Quota("exports", limit=5, per="year")

    assert nats("limits", "show", quota.name, "acme").endswith("  0 used, 5 left\n")
    assert nats("limits", "reset", quota.name, "acme") == "exports: nothing to forget\n"

    assert "QUOTAS" not in str(request(server, "$JS.API.STREAM.NAMES")["streams"])


def test_reset_lets_a_tenant_begin_the_period_again(
    counters: Counters, nats: Nats, failing_nats: FailingNats
) -> None:
    quota = Quota("exports", limit=5, per="year")
    for tenant in ("acme", "other"):
        quota.use(tenant, 5)

    assert nats("limits", "reset", "exports", "acme") == "exports: reset for 'acme'\n"

    assert quota.remaining("acme") == 5
    assert quota.remaining("other") == 0
    error = failing_nats("limits", "reset", "exports", "--all", "--noinput")[1]
    assert error == "exports is a quota. Quotas are reset for one tenant at a time."


def test_a_limit_and_a_quota_of_one_name_are_both_shown_and_reset(
    counters: Counters, declare: Declare, nats: Nats
) -> None:
    limit: Limit = declare("exports", "5/d")
    quota = Quota("exports", limit=5, per="year")
    limit.hit("acme", 5)
    quota.use("acme", 5)

    output = nats("limits", "show", "exports", "acme")
    assert "  A hit is refused for " in output
    assert "  5 used, 0 left, until " in output

    nats("limits", "reset", "exports", "acme")
    assert limit.peek("acme").remaining == quota.remaining("acme") == 5


def test_top_lists_no_quotas(counters: Counters, failing_nats: FailingNats) -> None:
    Quota("exports", limit=5, per="year").use("acme")

    assert failing_nats("limits", "top")[1] == "No hits count now."
