"""What throttles have that those of DRF have not: the options of limits."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIRequest
from django.core.management import call_command
from django.test import AsyncClient, override_settings
from django.urls import path

pytest.importorskip("rest_framework")

from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_nats.contrib.rest_framework import AnonRateThrottle, UserRateThrottle
from django_nats.counters.testing import zeroed_counters
from django_nats.devserver import NatsServer
from django_nats.limits import memory, refusals
from django_nats.limits.declared import limits
from django_nats.limits.middleware import limit_headers
from tests.contrib.asking import PerKey, allowed, ask, statuses
from tests.counters.conftest import PATIENT
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("counting")


def test_what_was_refused_is_refused_again_without_a_round_trip(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Throttle(UserRateThrottle):
        rate = "1/day"

    for module in (memory, refusals):
        monkeypatch.setattr(module, "monotonic", lambda: 1.0)
    with Proxy(server.port) as proxy:
        entry = {"LOCATION": proxy.url, "TOKEN": server.token, **PATIENT}
        with zeroed_counters(entry) as counters:
            assert statuses(2, Throttle) == [200, 429]
            counters.total(">")  # sent after what gives back the refused request
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


@override_settings(NATS_LIMITS={"ENABLED": False}, NATS_COUNTERS={})
def test_if_limits_are_off_throttles_are_and_need_no_server() -> None:
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


def with_middleware(request: Any, *throttles: type[Any]) -> Any:
    return limit_headers(lambda request: ask(*throttles, request=request))(request)


def test_the_middleware_adds_the_headers_of_the_throttle_that_leaves_least() -> None:
    class Hour(PerKey):
        rate, scope = "1/hour", "hour"

    responses = [with_middleware(APIRequestFactory().get("/"), PerKey, Hour) for _ in range(2)]
    assert [each["RateLimit-Limit"] for each in responses] == ["1", "1"]
    assert [each["RateLimit-Remaining"] for each in responses] == ["0", "0"]
    refused = responses[1]
    assert refused["RateLimit-Reset"] == refused["Retry-After"]
    assert 0 < int(refused["Retry-After"]) <= 7200


def test_a_throttle_that_only_logs_adds_no_headers() -> None:
    class Throttle(PerKey):
        dry_run = True

    assert "RateLimit-Limit" not in with_middleware(APIRequestFactory().get("/"), Throttle)


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
        response = with_middleware(APIRequestFactory().get("/"), Throttle)
    assert response.status_code == status
    assert "Retry-After" not in response
    if response.status_code == 429:
        assert response.data == {"detail": "Request was throttled."}


def test_commands_know_a_throttle_once_it_was_used_and_reset_it_by_name_and_key() -> None:
    class Throttle(AnonRateThrottle):
        scope = "first-seen-here"
        rate = "1/day"

    assert "drf-first-seen-here" not in [each.name for each in limits()]
    assert statuses(2, Throttle) == [200, 429]
    assert "drf-first-seen-here" in [each.name for each in limits()]

    Throttle().get_limit().reset("throttle_first-seen-here_127.0.0.1")
    assert statuses(1, Throttle) == [200]
    call_command(
        "nats", "limits", "reset", "drf-first-seen-here", "throttle_first-seen-here_127.0.0.1"
    )
    assert Throttle().get_limit().peek("throttle_first-seen-here_127.0.0.1")
