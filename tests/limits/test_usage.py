"""get_usage() and is_ratelimited(), on a real server."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from django_nats.limits import (
    UNSAFE,
    aget_usage,
    ais_ratelimited,
    get_usage,
    is_ratelimited,
    ratelimit,
    request_limits,
)
from tests.limits.conftest import Time

pytestmark = pytest.mark.usefixtures("alias", "time")


@pytest.fixture(autouse=True)
def without_memory() -> None:
    """Let no test know what another was refused: groups are the same, streams are not."""
    request_limits._limit.cache_clear()


@pytest.fixture
def request_(time: Time) -> HttpRequest:
    """Return a request at the beginning of its client's window."""
    time.begin_window("ip:127.0.0.1", 60)
    return RequestFactory().get("/")


LIMIT: dict[str, Any] = {"group": "shop", "key": "ip", "rate": "2/m"}


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def test_usage_is_what_has_been_counted(request_: HttpRequest) -> None:
    assert get_usage(request_, **LIMIT) == {
        "count": 0,
        "limit": 2,
        "should_limit": False,
        "time_left": 0,
    }
    counted = get_usage(request_, **LIMIT, increment=True)
    assert counted is not None
    assert (counted["count"], counted["should_limit"]) == (1, False)
    assert get_usage(request_, **LIMIT) == counted


def test_a_request_that_is_refused_is_not_counted(request_: HttpRequest) -> None:
    counted = [get_usage(request_, **LIMIT, increment=True) for _ in range(4)]
    assert [each and each["count"] for each in counted] == [1, 2, 2, 2]
    assert [each and each["should_limit"] for each in counted] == [False, False, True, True]


def test_without_increment_the_next_request_is_judged(request_: HttpRequest) -> None:
    assert not is_ratelimited(request_, **LIMIT)
    assert [is_ratelimited(request_, **LIMIT, increment=True) for _ in range(2)] == [False, False]
    assert is_ratelimited(request_, **LIMIT)


def test_time_left_is_until_a_request_is_let_through(request_: HttpRequest) -> None:
    usages = [get_usage(request_, **LIMIT, increment=True) for _ in range(3)]
    # The window ends in 60 s, and half a window later one of the two hits still counts.
    assert [each and each["time_left"] for each in usages] == [120, 120, 90]


def test_the_time_left_of_what_is_never_let_through_is_unknown(request_: HttpRequest) -> None:
    usage = get_usage(request_, **{**LIMIT, "rate": "0/s"}, increment=True)
    assert usage == {"count": 0, "limit": 0, "should_limit": True, "time_left": -1}


async def test_the_async_versions_count_the_same(request_: HttpRequest) -> None:
    assert await aget_usage(request_, **LIMIT) == {
        "count": 0,
        "limit": 2,
        "should_limit": False,
        "time_left": 0,
    }
    tries = [await ais_ratelimited(request_, **LIMIT, increment=True) for _ in range(3)]
    assert tries == [False, False, True]


def test_a_function_shares_the_count_of_the_decorated_view(request_: HttpRequest) -> None:
    decorated = ratelimit(key="ip", rate="2/m")(page)
    decorated(request_)
    for fn in (page, decorated):
        usage = get_usage(request_, fn=fn, key="ip", rate="2/m")
        assert usage is not None
        assert usage["count"] == 1


@pytest.mark.parametrize("other", [{"rate": None}, {"method": UNSAFE}])
def test_where_the_limit_does_not_apply_there_is_no_usage(
    other: Any, request_: HttpRequest
) -> None:
    assert get_usage(request_, **{**LIMIT, **other}) is None
    assert not is_ratelimited(request_, **{**LIMIT, **other})


@pytest.mark.parametrize(
    "setting", [{"ENABLED": False}, {"DRY_RUN": True}, {"EXEMPT": lambda request: True}]
)
def test_settings_let_no_limit_apply(setting: Any, request_: HttpRequest) -> None:
    with override_settings(NATS_LIMITS=setting):
        assert get_usage(request_, **{**LIMIT, "rate": "0/s"}, increment=True) is None


@pytest.mark.parametrize("fail_open", [True, False])
def test_while_the_server_is_away_fail_open_decides(fail_open: bool, request_: HttpRequest) -> None:
    away = {"LOCATION": "nats://127.0.0.1:1", "CONNECT_TIMEOUT": 0.5, "REQUEST_TIMEOUT": 0.5}
    limits = {"FAIL_OPEN": fail_open}
    with override_settings(NATS_COUNTERS={"default": away}, NATS_LIMITS=limits):
        usage = get_usage(request_, **LIMIT, increment=True)
    refused = {"count": 0, "limit": 0, "should_limit": True, "time_left": -1}
    assert usage == (None if fail_open else refused)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        ({"group": None}, TypeError, "need a group, or a view as fn"),
        ({"key": None}, TypeError, "need a key"),
        ({"key": "users"}, ValueError, "^The limit of 'shop': the key 'users' is unknown"),
        ({"rate": "5/x"}, ValueError, "^The limit of 'shop': the rate '5/x' is not a rate"),
    ],
)
def test_mistakes_are_errors(
    mistake: Any, error: type[Exception], message: str, request_: HttpRequest
) -> None:
    with pytest.raises(error, match=message):
        get_usage(request_, **{**LIMIT, **mistake})
