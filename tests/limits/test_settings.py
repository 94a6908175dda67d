"""The setting NATS_LIMITS: its defaults, its options and the values it refuses."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import override_settings

from django_nats.conf.limits import LIMIT_OPTIONS, LimitSettings, limit_settings
from django_nats.limits import Limit


def always(request: HttpRequest) -> bool:
    return True


HERE = f"{__name__}.always"


def read(**options: object) -> LimitSettings:
    with override_settings(NATS_LIMITS=options):
        return limit_settings()


def problem(**options: object) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        read(**options)
    return str(caught.value)


DEFAULTS = LimitSettings(
    enabled=True,
    dry_run=False,
    fail_open=False,
    alias="default",
    status=403,
    headers="separate",
    trusted_proxies=0,
    ipv4_prefix=32,
    ipv6_prefix=64,
    exempt=None,
    readable_keys=False,
    storage="memory",
)


def test_without_the_setting_there_are_defaults() -> None:
    assert limit_settings() == DEFAULTS


@pytest.mark.parametrize("empty", [{}, None])
def test_an_empty_setting_has_the_defaults(empty: Any) -> None:
    with override_settings(NATS_LIMITS=empty):
        assert limit_settings() == DEFAULTS


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("ENABLED", False, False),
        ("DRY_RUN", True, True),
        ("FAIL_OPEN", True, True),
        ("STATUS", 429, 429),
        ("HEADERS", "draft", "draft"),
        ("HEADERS", "both", "both"),
        ("HEADERS", None, None),
        ("TRUSTED_PROXIES", 2, 2),
        ("TRUSTED_PROXIES", [], ()),
        (
            "TRUSTED_PROXIES",
            ["10.0.0.0/8", "192.0.2.7", "fd00::/8"],
            (ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("fd00::/8")),
        ),
        ("TRUSTED_PROXIES", (ip_network("10.0.0.0/8"),), (ip_network("10.0.0.0/8"),)),
        ("IPV4_PREFIX", 24, 24),
        ("IPV6_PREFIX", 48, 48),
        ("IPV6_PREFIX", 128, 128),
        ("EXEMPT", always, always),
        ("EXEMPT", HERE, HERE),
        ("READABLE_KEYS", True, True),
        ("STORAGE", "file", "file"),
    ],
)
def test_an_option_has_its_value(option: str, value: object, expected: object) -> None:
    assert getattr(read(**{option: value}), option.lower()) == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ENABLED", 1),
        ("ENABLED", None),
        ("DRY_RUN", "yes"),
        ("FAIL_OPEN", "no"),
        ("ALIAS", 1),
        ("STATUS", 503),
        ("STATUS", "429"),
        ("STATUS", 429.0),
        ("STATUS", None),
        ("HEADERS", "Draft"),
        ("HEADERS", False),
        ("HEADERS", ["separate"]),
        ("TRUSTED_PROXIES", -1),
        ("TRUSTED_PROXIES", True),
        ("TRUSTED_PROXIES", None),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("TRUSTED_PROXIES", [1]),
        ("TRUSTED_PROXIES", ["10.0.0.1/8"]),
        ("TRUSTED_PROXIES", ["proxy.internal"]),
        ("IPV4_PREFIX", 0),
        ("IPV4_PREFIX", 33),
        ("IPV4_PREFIX", "24"),
        ("IPV6_PREFIX", 129),
        ("IPV6_PREFIX", True),
        ("EXEMPT", True),
        ("EXEMPT", "not a path"),
        ("EXEMPT", ""),
        ("EXEMPT", "nodots"),
        ("READABLE_KEYS", 0),
        ("STORAGE", "disk"),
    ],
)
def test_an_error_names_the_option_and_its_value(option: str, value: object) -> None:
    text = problem(**{option: value})
    assert text.startswith(f"NATS_LIMITS: {option} ")
    shown = value[0] if isinstance(value, list) and option == "TRUSTED_PROXIES" else value
    assert repr(shown) in text or type(shown).__name__ in text


def test_an_unknown_option_is_refused_with_the_one_that_may_be_meant() -> None:
    assert problem(ENABLE=True) == ("NATS_LIMITS: unknown option 'ENABLE'. Did you mean ENABLED?")


@override_settings(NATS_LIMITS=["ENABLED"])
def test_another_type_than_a_dict_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^NATS_LIMITS must be a dict, not list\.$"):
        limit_settings()


def test_all_options_are_tested() -> None:
    assert {option.lower() for option in LIMIT_OPTIONS} == set(vars(DEFAULTS))


@pytest.mark.parametrize(
    ("aliases", "options", "alias"),
    [
        ({}, {}, "default"),
        ({"default": {}}, {}, "default"),
        ({"default": {}, "limits": {}}, {}, "limits"),
        ({"default": {}, "limits": {}}, {"ALIAS": None}, "limits"),
        ({"default": {}, "limits": {}}, {"ALIAS": "default"}, "default"),
        ({"default": {}, "other": {}}, {"ALIAS": "other"}, "other"),
    ],
)
def test_the_alias_is_that_of_the_setting_or_limits_or_default(
    aliases: Any, options: Any, alias: str
) -> None:
    with override_settings(NATS_COUNTERS=aliases):
        assert read(**options).alias == alias


@override_settings(NATS_COUNTERS={"default": {}, "hits": {}})
def test_an_alias_must_be_one_of_counters() -> None:
    assert problem(ALIAS="api") == (
        "NATS_LIMITS: ALIAS is 'api', which is no alias of NATS_COUNTERS. It has: default, hits."
    )


def test_settings_are_read_once_until_they_change() -> None:
    with override_settings(NATS_LIMITS={"STATUS": 429}):
        known = limit_settings()
        assert limit_settings() is known
        with override_settings(NATS_COUNTERS={"limits": {}}):
            assert limit_settings().alias == "limits"
    assert limit_settings().status == 403


def test_the_function_exempt_is_imported_at_its_first_use() -> None:
    assert read().is_exempt is None
    assert read(EXEMPT=always).is_exempt is always
    assert read(EXEMPT=HERE).is_exempt is always


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no.such.function", "cannot be imported"),
        (f"{__name__}.missing", "cannot be imported"),
        (f"{__name__}.HERE", r"is not a function, but str\."),
    ],
)
def test_an_error_in_the_path_of_exempt_names_it(path: str, reason: str) -> None:
    settings = read(EXEMPT=path)
    match = rf"^NATS_LIMITS: EXEMPT: {re.escape(repr(path))} {reason}"
    with pytest.raises(ImproperlyConfigured, match=match):
        settings.is_exempt  # noqa: B018


@override_settings(NATS_LIMITS={"ENABLED": False}, NATS_COUNTERS={})
async def test_limits_that_are_off_need_no_counters() -> None:
    limit = Limit("api", "1/d", lambda group, request: "nonsense")
    for decision in (
        limit.hit("a"),
        await limit.ahit("a"),
        limit.peek("a"),
        await limit.apeek("a"),
    ):
        assert (decision.allowed, decision.limit) == (True, None)
    limit.reset("a")
    await limit.areset("a")
