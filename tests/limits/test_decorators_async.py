"""Asynchronous views that are limited by ``@ratelimit``, on a real server."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views import View

from django_nats.counters import Counters
from django_nats.limits import Ratelimited, ratelimit, request_limits
from tests.limits.conftest import Time

pytestmark = [
    pytest.mark.usefixtures("alias", "time"),
    pytest.mark.filterwarnings("ignore:No directory at"),
]


@pytest.fixture(autouse=True)
def without_memory() -> None:
    """Let no test know what another was refused: views are the same, streams are not."""
    request_limits._limit.cache_clear()


async def answer(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("limited" if getattr(request, "limited", False) else "fine")


def limited(**options: Any) -> Any:
    """Return a view that is limited to two requests a minute."""
    return ratelimit(**{"key": "ip", "rate": "2/m", "group": "shop", **options})(answer)


async def count_let_through(view: Any, tries: int = 5, **attributes: Any) -> int:
    """Return how many of so many requests are answered."""
    let_through = 0
    for _ in range(tries):
        request = AsyncRequestFactory().get("/")
        vars(request).update(attributes)
        try:
            let_through += (await view(request)).status_code == 200
        except Ratelimited:
            pass
    return let_through


@ratelimit(key="ip", rate="9/h")
@ratelimit(key="ip", rate="2/m")
async def page(request: HttpRequest) -> HttpResponse:
    return await answer(request)


@ratelimit(key="ip", rate="2/m")
def sync_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Plain(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await answer(request)


@method_decorator(ratelimit(key="ip", rate="2/m"), name="dispatch")
class Dispatched(Plain):
    pass


class Method(View):
    @method_decorator(ratelimit(key="ip", rate="2/m"))
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await answer(request)


urlpatterns = [
    path("page", page),
    path("sync", sync_page),
    path("dispatched", Dispatched.as_view()),
    path("method", Method.as_view()),
    path("wrapped", ratelimit(key="ip", rate="2/m")(Plain.as_view())),
]


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize(
    "url",
    [
        "/page",
        "/sync",
        "/dispatched",
        "/wrapped",
        "/method",
    ],
)
async def test_the_third_request_is_refused(
    url: str, status: int, async_client: AsyncClient, time: Time
) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    with override_settings(NATS_LIMITS={"STATUS": status}):
        responses = [await async_client.get(url) for _ in range(4)]
        assert [each.status_code for each in responses] == [200, 200, status, status]
        assert responses[0].headers["RateLimit-Limit"] == "2"
        assert responses[0].headers["RateLimit-Remaining"] == "1"
        time.pass_by(120)
        assert (await async_client.get(url)).status_code == 200


def test_a_coroutine_function_stays_one() -> None:
    assert iscoroutinefunction(page)
    assert not iscoroutinefunction(sync_page)


async def test_a_view_that_is_not_blocked_is_told_that_the_request_is_limited(time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    view = limited(block=False)
    contents = [(await view(AsyncRequestFactory().get("/"))).content for _ in range(3)]
    assert contents == [b"fine", b"fine", b"limited"]


async def test_functions_may_be_coroutine_functions(time: Time) -> None:
    async def key(group: str, request: HttpRequest) -> str:
        return "one"

    async def rate(group: str, request: HttpRequest) -> str:
        return "2/m"

    async def exempt(request: Any) -> bool:
        return bool(getattr(request, "internal", False))

    time.begin_window("key:one", 60)
    view = limited(key=key, rate=rate, exempt=exempt)
    assert await count_let_through(view) == 2
    assert await count_let_through(view, internal=True) == 5
    with override_settings(NATS_LIMITS={"EXEMPT": exempt}):
        assert await count_let_through(limited(key=key, rate="0/s"), internal=True) == 5


def test_a_coroutine_function_needs_a_coroutine_function_as_view() -> None:
    async def rate(group: str, request: HttpRequest) -> str:
        return "2/m"

    view = ratelimit(key="ip", rate=rate)(lambda request: HttpResponse())
    with pytest.raises(TypeError, match="A coroutine function needs the async"):
        view(AsyncRequestFactory().get("/"))


async def test_the_user_is_loaded_without_blocking(time: Time) -> None:
    def load() -> User:
        raise AssertionError("The database was asked from the event loop")

    async def auser() -> User:
        return User(pk=1)

    time.begin_window("user:1", 60)
    attributes = {"user": SimpleLazyObject(load), "auser": auser}
    assert await count_let_through(limited(key="user_or_ip"), **attributes) == 2


@pytest.mark.parametrize(("fail_open", "let_through"), [(True, 5), (False, 0)])
async def test_while_the_server_is_away_fail_open_decides(
    fail_open: bool, let_through: int, alias: Counters
) -> None:
    away = {"default": {"LOCATION": "nats://127.0.0.1:1", "CONNECT_TIMEOUT": 0.5}}
    with override_settings(NATS_COUNTERS=away):
        view = limited(fail_open=fail_open, timeout=0.5)
        assert await count_let_through(view) == let_through


@override_settings(NATS_LIMITS={"ENABLED": False}, NATS_COUNTERS={})
async def test_limits_that_are_off_ask_no_server() -> None:
    assert await count_let_through(limited(rate="0/s")) == 5


async def test_a_dry_run_only_logs() -> None:
    assert await count_let_through(limited(dry_run=True)) == 5
