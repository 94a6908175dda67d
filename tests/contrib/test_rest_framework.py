"""What throttles have in common with those of DRF."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured

pytest.importorskip("rest_framework")

from rest_framework import throttling
from rest_framework.settings import api_settings

from django_nats.contrib import rest_framework as contrib
from django_nats.contrib.rest_framework import (
    AnonRateThrottle,
    ScopedRateThrottle,
    SimpleRateThrottle,
    UserRateThrottle,
)
from tests.contrib.asking import PerKey, allowed, ask, statuses

pytestmark = pytest.mark.usefixtures("counting")


@pytest.mark.parametrize("name", contrib.__all__)
def test_each_throttle_is_one_of_drfs_of_the_same_name(name: str) -> None:
    ours = getattr(contrib, name)
    assert issubclass(ours, getattr(throttling, name))
    assert issubclass(ours, SimpleRateThrottle)


@pytest.mark.smoke
def test_a_request_over_the_rate_gets_429_with_the_time_to_wait() -> None:
    assert statuses(2, PerKey) == [200, 200]
    response = ask(PerKey)
    assert response.status_code == 429
    assert 0 < int(response["Retry-After"]) <= 90


def test_users_and_addresses_are_counted_apart() -> None:
    class Anon(AnonRateThrottle):
        rate = "1/day"

    class Users(UserRateThrottle):
        rate = "1/day"

    ada, max_ = User(pk=1, username="ada"), User(pk=2, username="max")
    assert statuses(2, Users, user=ada) == [200, 429]
    assert statuses(2, Users, user=max_) == [200, 429]
    assert statuses(2, Users, REMOTE_ADDR="192.0.2.1") == [200, 429]
    assert statuses(2, Users, REMOTE_ADDR="192.0.2.2") == [200, 429]
    assert statuses(2, Anon, user=ada) == [200, 200]
    assert statuses(2, Anon, REMOTE_ADDR="192.0.2.1") == [200, 429]


def test_an_address_behind_proxies_is_found_as_drf_finds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Anon(AnonRateThrottle):
        rate = "1/day"

    monkeypatch.setattr(api_settings, "NUM_PROXIES", 1)
    forwarded = {"HTTP_X_FORWARDED_FOR": "198.51.100.1, 192.0.2.1"}
    spoofed = {"HTTP_X_FORWARDED_FOR": "198.51.100.2, 192.0.2.1"}
    other = {"HTTP_X_FORWARDED_FOR": "198.51.100.1, 192.0.2.2"}
    assert ask(Anon, **forwarded).status_code == 200
    assert ask(Anon, **spoofed).status_code == 429
    assert ask(Anon, **other).status_code == 200


def test_a_view_names_its_scope() -> None:
    class Scoped(ScopedRateThrottle):
        THROTTLE_RATES = {"uploads": "1/day", "exports": "2/day", "open": None}

    assert statuses(2, Scoped, scope="uploads") == [200, 429]
    assert statuses(3, Scoped, scope="exports") == [200, 200, 429]
    assert statuses(3, Scoped, scope="open") == [200, 200, 200]
    assert statuses(3, Scoped) == [200, 200, 200]


def test_every_throttle_of_a_view_counts_a_request_that_another_refuses() -> None:
    class Burst(UserRateThrottle):
        rate, scope = "1/day", "burst"

    class Sustained(UserRateThrottle):
        rate, scope = "3/day", "sustained"

    assert statuses(3, Burst, Sustained) == [200, 429, 429]
    assert statuses(1, Sustained) == [429]


def test_methods_of_a_subclass_decide_about_rate_period_and_key() -> None:
    class Throttle(SimpleRateThrottle):
        def get_rate(self) -> str:
            return "2 per fortnight"

        def parse_rate(self, rate: str | None) -> tuple[int, int]:
            assert rate == "2 per fortnight"
            return 2, 14 * 86_400

        def get_cache_key(self, request: Any, view: Any) -> Any:
            return request.META.get("HTTP_X_API_KEY")

    assert statuses(3, Throttle, HTTP_X_API_KEY="a") == [200, 200, 429]
    assert statuses(1, Throttle, HTTP_X_API_KEY="b") == [200]
    assert statuses(3, Throttle) == [200, 200, 200]


@pytest.mark.parametrize("key", [7, ("a", 7), "\N{SNOWMAN} *.>", "", "x" * 5000])
def test_a_key_may_be_anything_with_a_text(key: Any) -> None:
    class Throttle(PerKey):
        def get_cache_key(self, request: Any, view: Any) -> Any:
            return key

    assert [allowed(Throttle) for _ in range(3)] == [True, True, False]


def test_throttles_of_one_scope_count_together_even_with_different_rates() -> None:
    class Three(UserRateThrottle):
        rate = "3/day"

    class Two(UserRateThrottle):
        rate = "2/day"

    assert statuses(2, Three) == [200, 200]
    assert statuses(1, Two) == [429]
    assert statuses(2, Three) == [200, 429]


def test_hooks_of_a_subclass_see_each_request_that_is_counted() -> None:
    seen: list[str] = []

    class Throttle(PerKey):
        rate = "1/min"

        def throttle_success(self) -> bool:
            seen.append(f"{self.key} has {self.decision.remaining} left")
            return super().throttle_success()

        def throttle_failure(self) -> bool:
            seen.append(f"{self.key} waits {self.wait():.0f} s")
            return super().throttle_failure()

    assert [allowed(Throttle) for _ in range(2)] == [True, False]
    assert seen[0] == "everyone has 0 left"
    assert seen[1].startswith("everyone waits ")


def test_without_drf_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, contrib.__name__)
    monkeypatch.setitem(sys.modules, "rest_framework", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install djangorestframework$"):
        importlib.import_module(contrib.__name__)
