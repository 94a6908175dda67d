"""Throttles of Django REST framework that count on the server."""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.test import AsyncClient, override_settings
from django.urls import path
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

pytest.importorskip("rest_framework")

from rest_framework import throttling
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from django_nats.contrib import rest_framework as contrib
from django_nats.contrib.rest_framework import (
    AnonRateThrottle,
    ScopedRateThrottle,
    SimpleRateThrottle,
    UserRateThrottle,
)
from django_nats.counters.testing import zeroed_counters
from django_nats.devserver import NatsServer
from django_nats.limits import memory, refusals
from tests.counters.conftest import PATIENT
from tests.servers import eventually
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("counting")

NUMBERS = itertools.count()


class PerKey(SimpleRateThrottle):
    """Counts all requests together, at a time that stands still."""

    rate = "2/min"
    now = 1_000_000.0
    key = "everyone"

    def get_cache_key(self, request: Any, view: Any) -> Any:
        return self.key

    def timer(self) -> float:
        return self.now


def ask(*throttles: type[Any], user: Any = None, scope: str = "", **meta: str) -> Any:
    """Return the response of a view with these throttles."""

    class Page(APIView):
        throttle_classes = throttles
        throttle_scope = scope

        def get(self, request: Any) -> Response:
            return Response()

    request = APIRequestFactory().get("/", **meta)
    force_authenticate(request, user or AnonymousUser())
    return Page.as_view()(request)


def statuses(count: int, *throttles: type[Any], **options: Any) -> list[int]:
    return [ask(*throttles, **options).status_code for _ in range(count)]


def allowed(throttle: type[SimpleRateThrottle]) -> bool:
    return throttle().allow_request(None, None)


# What is DRF's --------------------------------------------------------------------------------


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


# Time -----------------------------------------------------------------------------------------


@hypothesis_settings(
    max_examples=30,
    phases=[Phase.generate],  # an example that fails may take a minute
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rate=st.sampled_from(["1/sec", "3/min", "10/hour", "7/day"]),
    begin=st.floats(0, 2e9),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=20),
    algorithm=st.sampled_from(["sliding", "fixed"]),
)
def test_a_refused_request_is_allowed_after_its_wait_and_not_before(
    rate: str, begin: float, gaps: list[float], algorithm: str
) -> None:
    class Throttle(PerKey):
        now = begin

    Throttle.rate, Throttle.algorithm = rate, algorithm
    Throttle.key = f"key {next(NUMBERS)}"
    throttle = Throttle()
    for gap in gaps:
        Throttle.now += gap * throttle.duration / throttle.num_requests
        throttle = Throttle()
        if not throttle.allow_request(None, None):
            break
    wait = throttle.wait()
    assert wait is not None
    if throttle.decision:
        assert wait == 0
        return

    def peek(after: float) -> Any:
        limit = throttle.get_limit()
        return limit._run(limit._peek(Throttle.key, None, now=Throttle.now + after))

    # Once the server has taken the refused request off again.
    assert eventually(lambda: peek(0).retry_after == pytest.approx(wait))
    assert not peek(wait * 0.99)
    Throttle.now += wait + 1e-6
    assert allowed(Throttle)


def test_a_rate_of_nothing_allows_nothing_and_gives_no_time_to_wait() -> None:
    class Never(PerKey):
        rate = "0/day"

    response = ask(Never)
    assert response.status_code == 429
    assert "Retry-After" not in response


def test_before_a_request_is_counted_there_is_no_time_to_wait() -> None:
    assert PerKey().wait() is None


def test_a_timer_replaces_the_servers_clock() -> None:
    class Throttle(PerKey):
        rate = "1/day"

    assert [allowed(Throttle) for _ in range(2)] == [True, False]
    Throttle.now += 3 * 86_400
    assert [allowed(Throttle) for _ in range(2)] == [True, False]


def test_without_a_timer_of_ones_own_the_servers_clock_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    assert statuses(2, Throttle) == [200, 429]
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert statuses(1, Throttle) == [429]


@pytest.mark.parametrize("replace", [lambda self: 1e9, staticmethod(lambda: 1e9)])
def test_a_timer_that_a_test_patches_into_drfs_class_is_honoured(
    monkeypatch: pytest.MonkeyPatch, replace: Any
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    assert statuses(2, Throttle) == [200, 429]
    monkeypatch.setattr(throttling.SimpleRateThrottle, "timer", replace)
    assert statuses(2, Throttle) == [200, 429]


# What is ours ---------------------------------------------------------------------------------


def test_what_was_refused_is_refused_again_without_a_round_trip(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    for module in (memory, refusals):
        monkeypatch.setattr(module, "monotonic", lambda: 1.0)
    with Proxy(server.port) as proxy:
        entry = {"LOCATION": proxy.url, "TOKEN": server.token, **PATIENT}
        with zeroed_counters(entry):
            assert statuses(2, Throttle) == [200, 429]
            before = proxy.round_trips
            assert statuses(20, Throttle) == [429] * 20
            assert proxy.round_trips == before


def test_a_throttle_may_wait_for_a_shorter_time() -> None:
    class Throttle(PerKey):
        timeout = 0.25

    assert Throttle().get_limit().timeout == 0.25


def test_a_throttle_may_only_log(caplog: pytest.LogCaptureFixture) -> None:
    class Throttle(PerKey):
        dry_run = True

    assert [allowed(Throttle) for _ in range(3)] == [True, True, True]


@override_settings(NATS_LIMITS={"ENABLED": False})
def test_throttles_are_off_if_limits_are() -> None:
    assert [allowed(PerKey) for _ in range(3)] == [True, True, True]


def is_ada(request: Any) -> bool:
    assert type(request) is WSGIRequest
    return bool(request.user.get_username() == "ada")


async def is_anybody(request: Any) -> bool:
    return False


@override_settings(NATS_LIMITS={"EXEMPT": is_ada})
def test_a_request_that_the_settings_exempt_is_not_counted() -> None:
    ada, max_ = User(pk=1, username="ada"), User(pk=2, username="max")
    assert statuses(3, PerKey, user=ada) == [200, 200, 200]
    assert statuses(3, PerKey, user=max_) == [200, 200, 429]
    assert statuses(1, PerKey, user=ada) == [200]


@override_settings(NATS_LIMITS={"EXEMPT": is_anybody})
def test_a_coroutine_function_exempts_nobody() -> None:
    with pytest.raises(TypeError, match="coroutine function"):
        ask(PerKey)


def test_a_rate_that_the_server_cannot_count_is_an_error_that_names_it() -> None:
    class Negative(PerKey):
        rate = "-1/day"

    class Century(PerKey):
        scope = "slow"

        def parse_rate(self, rate: str | None) -> tuple[int, int]:
            return 1, 100 * 366 * 86_400

    with pytest.raises(ValueError, match=r"^Limit\('drf'\): the rate \(-1, 86400\) has a count"):
        allowed(Negative)
    with pytest.raises(ValueError, match=r"^Limit\('drf-slow'\): .* has a time"):
        allowed(Century)


def test_counts_are_in_the_streams_of_the_alias_that_a_throttle_names(server: NatsServer) -> None:
    class Elsewhere(PerKey):
        alias = "api"

    entry = {"LOCATION": server.url, "TOKEN": server.token, "STREAM": "elsewhere"}
    with zeroed_counters(entry):
        assert [allowed(PerKey) for _ in range(3)] == [True, True, False]
    with override_settings(NATS_COUNTERS={"api": entry}):
        assert [allowed(Elsewhere) for _ in range(3)] == [True, True, False]


def test_a_test_with_counters_of_its_own_finds_nothing_refused(server: NatsServer) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    assert statuses(2, Throttle) == [200, 429]
    with zeroed_counters({"LOCATION": server.url, "TOKEN": server.token}):
        assert statuses(2, Throttle) == [200, 429]


async def test_under_asgi_a_view_is_throttled_as_well(settings: Any) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    class Page(APIView):
        throttle_classes = [Throttle]

        def get(self, request: Any) -> Response:
            return Response()

    settings.ROOT_URLCONF = (path("page", Page.as_view()),)
    client = AsyncClient()
    assert [(await client.get("/page")).status_code for _ in range(2)] == [200, 429]


# While the server is away ---------------------------------------------------------------------


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 429)])
def test_during_an_outage_fail_open_decides_and_no_time_to_wait_is_known(
    own_server: NatsServer, fail_open: bool, status: int
) -> None:
    class Throttle(PerKey):
        pass

    Throttle.fail_open = fail_open
    entry = {"LOCATION": own_server.url, "TOKEN": own_server.token}
    with override_settings(NATS_COUNTERS={"default": entry}):
        own_server.kill()
        response = ask(Throttle)
    assert response.status_code == status
    assert "Retry-After" not in response
    if response.status_code == 429:
        assert response.data == {"detail": "Request was throttled."}


def test_without_drf_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, contrib.__name__)
    monkeypatch.setitem(sys.modules, "rest_framework", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install djangorestframework$"):
        importlib.import_module(contrib.__name__)
