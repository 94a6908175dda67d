"""Quotas on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.utils import timezone as django_timezone

from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import Quota, Usage
from tests.counters.conftest import Configure
from tests.limits.conftest import Time
from tests.servers import request

pytestmark = pytest.mark.usefixtures("alias", "time")

Use = Callable[..., Usage]


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Use:
    """Return each way to use a quota."""
    if request.param == "sync":
        return lambda quota, *arguments: quota.use(*arguments)
    return lambda quota, *arguments: asyncio.run(quota.ause(*arguments))


def exports(limit: Any = 10, per: str = "month", **options: Any) -> Quota:
    return Quota("exports", limit=limit, per=per, **options)


def numbers(usage: Usage) -> tuple[bool, int, int | None, int | None]:
    return usage.allowed, usage.used, usage.limit, usage.remaining


# Using ---------------------------------------------------------------------------------------


def test_as_much_as_the_limit_says_can_be_used(use: Use) -> None:
    quota = exports(3)
    assert [bool(use(quota, "acme")) for _ in range(5)] == [True, True, True, False, False]
    assert use(quota, "other")


def test_a_usage_says_what_is_used_and_what_is_left(use: Use) -> None:
    quota = exports()
    assert numbers(use(quota, "acme", 4)) == (True, 4, 10, 6)
    assert numbers(use(quota, "acme", 7)) == (False, 4, 10, 6)
    assert numbers(use(quota, "acme", 6)) == (True, 10, 10, 0)
    assert numbers(use(quota, "acme")) == (False, 10, 10, 0)


def test_only_an_allowed_use_has_an_id(use: Use) -> None:
    quota = exports(1)
    assert use(quota, "acme").id
    assert use(quota, "acme").id == ""
    assert quota.usage("acme").id == ""


def test_looking_uses_nothing() -> None:
    quota = exports(2)
    quota.use("acme")
    for _ in range(3):
        assert numbers(quota.usage("acme")) == (True, 1, 2, 1)
        assert numbers(asyncio.run(quota.ausage("acme"))) == (True, 1, 2, 1)
        assert quota.remaining("acme") == asyncio.run(quota.aremaining("acme")) == 1
    quota.use("acme")
    assert numbers(quota.usage("acme")) == (False, 2, 2, 0)


def test_without_a_limit_everything_is_allowed_and_counted(use: Use) -> None:
    quota = exports(None)
    assert numbers(use(quota, "acme", 10**15)) == (True, 10**15, None, None)
    assert quota.remaining("acme") is None
    assert numbers(quota.usage("acme")) == (True, 10**15, None, None)


def test_a_limit_of_0_allows_nothing(use: Use) -> None:
    quota = exports(0)
    assert numbers(use(quota, "acme")) == (False, 0, 0, 0)
    assert not quota.usage("acme")


def test_a_reset_lets_a_tenant_begin_again() -> None:
    quota = exports(5)
    quota.use("acme", 5)
    quota.use("other", 5)
    quota.reset("acme")
    assert numbers(quota.use("acme", 2)) == (True, 2, 5, 3)
    asyncio.run(quota.areset("acme"))
    assert numbers(quota.use("acme", 5)) == (True, 5, 5, 0)
    assert not quota.use("other")


# Limits --------------------------------------------------------------------------------------


def test_a_limit_may_depend_on_the_tenant_and_change_within_the_period(use: Use) -> None:
    limits = {"acme": 2, "other": None}
    quota = exports(limits.get)
    assert numbers(use(quota, "acme", 2)) == (True, 2, 2, 0)
    assert not use(quota, "acme")
    assert use(quota, "other", 100)
    limits["acme"] = 5
    assert numbers(use(quota, "acme", 2)) == (True, 4, 5, 1)
    limits["acme"] = 3
    assert numbers(use(quota, "acme")) == (False, 4, 3, 0)
    assert quota.remaining("acme") == 0


def test_async_methods_await_a_limit() -> None:
    async def limit(tenant: str) -> int:
        await asyncio.sleep(0)
        return len(tenant)

    quota = exports(limit)
    assert asyncio.run(quota.ause("acme", 4))
    assert asyncio.run(quota.aremaining("acme")) == 0
    with pytest.raises(TypeError, match="async method"):
        quota.use("acme")


@pytest.mark.parametrize(
    ("limit", "error"), [("5", TypeError), (5.0, TypeError), (True, TypeError), (-1, ValueError)]
)
def test_what_is_no_limit_is_refused_and_uses_nothing(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Quota\('exports'\): the limit must"):
        exports(limit)
    with pytest.raises(error, match=r"Quota\('exports'\): the limit must"):
        exports(lambda tenant: limit).use("acme")
    assert exports().usage("acme").used == 0


def test_an_error_of_the_limits_function_is_raised_and_nothing_is_used(use: Use) -> None:
    def limit(tenant: object) -> int:
        raise LookupError("no plan")

    with pytest.raises(LookupError, match="no plan"):
        use(exports(limit), "acme")
    assert exports().usage("acme").used == 0


# Periods -------------------------------------------------------------------------------------


def test_a_new_period_begins_with_nothing_used(time: Time) -> None:
    quota = exports(2, "hour")
    assert quota.use("acme", 2)
    assert not quota.use("acme")
    time.now = quota.reset_at().timestamp() - 0.001
    assert not quota.use("acme")
    time.pass_by(0.002)
    assert numbers(quota.use("acme", 2)) == (True, 2, 2, 0)


def test_a_period_ends_by_the_calendar_of_the_quotas_time_zone(time: Time) -> None:
    time.now = datetime(2026, 11, 30, 20, 30, tzinfo=timezone.utc).timestamp()
    tokyo = ZoneInfo("Asia/Tokyo")  # it is December there
    ends = {
        "Asia/Tokyo": datetime(2027, 1, 1, tzinfo=tokyo),
        "Europe/Berlin": datetime(2026, 12, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    }
    for tz, end in ends.items():
        quota = exports(tz=tz)
        for found in (quota.reset_at(), asyncio.run(quota.areset_at()), quota.use("a").reset_at):
            assert found == end
            assert found.utcoffset() == end.utcoffset()
    assert exports(tz=tokyo).usage("a").used == 1


def test_the_default_time_zone_is_that_of_the_settings_and_not_the_visitors(time: Time) -> None:
    quota = exports(per="day")
    for name in ("America/New_York", "Asia/Kolkata"):
        with override_settings(TIME_ZONE=name), django_timezone.override("Pacific/Auckland"):
            end = quota.reset_at()
            assert end.tzinfo == ZoneInfo(name)
            assert (end.hour, end.minute) == (0, 0)
            assert end > datetime.fromtimestamp(time.now, timezone.utc)


@pytest.mark.parametrize("per", ["hour", "day", "week", "month", "year"])
def test_every_kind_of_period_is_counted(time: Time, per: str) -> None:
    quota = exports(2, per)
    assert quota.use("acme", 2)
    assert not quota.use("acme")
    now = datetime.fromtimestamp(time.now, timezone.utc)
    longest = {"hour": 1, "day": 25, "week": 7 * 24 + 1, "month": 31 * 24 + 1, "year": 366 * 24}
    assert now < quota.reset_at() <= now + timedelta(hours=longest[per])


# Tenants -------------------------------------------------------------------------------------


def subjects(server: NatsServer, quota: Quota) -> str:
    info = f"$JS.API.STREAM.INFO.{quota._stream.config.stream}"
    return str(request(server, info, {"subjects_filter": ">"})["state"])


@pytest.mark.django_db
def test_a_model_instance_is_a_tenant_of_its_own() -> None:
    quota = exports(1)
    ann, bob = User.objects.create(username="ann"), User.objects.create(username="bob")
    assert quota.use(ann)
    assert not quota.use(User.objects.get(username="ann"))
    assert quota.use(bob)
    assert quota.use(str(ann.pk))
    with pytest.raises(ValueError, match=r"Quota\('exports'\): .* not saved"):
        quota.use(User(username="new"))


@pytest.mark.parametrize("tenant", [None, True, 1.5, b"acme", object()])
def test_a_tenant_of_another_type_is_refused(tenant: Any) -> None:
    with pytest.raises(TypeError, match=r"Quota\('exports'\): the key must be"):
        exports().use(tenant)


def test_subjects_hold_a_hash_of_the_tenant(server: NatsServer) -> None:
    quota = exports()
    used = quota.use("ann@example.com")
    quota.refund(used.id)
    quota.reset("ann@example.com")
    assert "exports." in subjects(server, quota)
    assert "ann" not in subjects(server, quota)
    assert "ann" not in used.id + repr(used) + repr(quota)


def test_subjects_can_hold_the_tenant_in_readable_form(server: NatsServer) -> None:
    quota = exports(1, readable=True)
    id = quota.use("acme >*. co").id
    assert "exports.acme=20=3E=2A=2E=20co." in subjects(server, quota)
    assert not quota.use("acme >*. co")
    assert quota.use("acme")
    assert quota.refund(id)
    with override_settings(NATS_LIMITS={"READABLE_KEYS": True}):
        assert quota._key("acme") == exports()._key("acme") == "acme"
        assert exports(readable=False)._key("acme") != "acme"


# Settings ------------------------------------------------------------------------------------


def test_switching_limits_off_or_to_dry_run_does_not_concern_quotas() -> None:
    quota = exports(1)
    with override_settings(NATS_LIMITS={"ENABLED": False, "DRY_RUN": True}):
        assert quota.use("acme")
        assert not quota.use("acme")


def test_uses_are_counted_in_the_alias_of_the_quota(configure: Configure) -> None:
    configure("limits", STREAM=f"{configure().settings.stream.stream}_limits")
    assert exports().alias == "limits"
    assert exports(alias="default").alias == "default"
    assert exports(1).use("acme")
    assert exports(1, alias="default").use("acme")
    assert exports()._stream is not exports(alias="default")._stream


def test_changed_settings_count_in_another_stream(counters: Counters, configure: Configure) -> None:
    quota = exports(1)
    assert quota.use("acme")
    configure(STREAM=f"{counters.settings.stream.stream}_again")
    assert quota.use("acme")
    assert not quota.use("acme")


def test_quotas_are_kept_in_files_and_with_a_history(server: NatsServer) -> None:
    quota = exports()
    quota.use("acme")
    info: Any = request(server, f"$JS.API.STREAM.INFO.{quota._stream.config.stream}")
    config = info["config"]
    assert (config["storage"], config["max_msgs_per_subject"]) == ("file", 8)


# Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"per": "minute"}, ValueError, "per is 'minute'; it must be one of hour, day, week"),
        ({"per": ["day"]}, ValueError, r"per is \['day'\]"),
        ({"tz": "Europe/Nowhere"}, ValueError, "there is no time zone 'Europe/Nowhere'"),
        ({"tz": "../secret"}, ValueError, "there is no time zone"),
        ({"tz": 1}, TypeError, "tz must be the name of a time zone"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(
    options: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=rf"Quota\('exports'\): {problem}"):
        exports(**options)


@pytest.mark.parametrize("name", ["", "x" * 65, None, 5])
def test_a_wrong_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="A quota's name must be a string of 1 to 64 bytes"):
        Quota(name, limit=1, per="day")


@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (10**15 + 1, ValueError),
        (1.0, TypeError),
        (True, TypeError),
    ],
)
def test_a_wrong_n_is_refused_and_uses_nothing(use: Use, n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Quota\('exports'\): n must be"):
        use(exports(), "acme", n)
    assert exports().usage("acme").used == 0


def test_a_time_zone_that_does_not_know_its_offset_is_refused() -> None:
    class OfPytz(tzinfo):
        def localize(self, moment: datetime) -> datetime:
            raise NotImplementedError

    with pytest.raises(TypeError, match="such as ZoneInfo"):
        exports(tz=OfPytz())
