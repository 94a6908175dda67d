"""Limited views, as users write them, with the type of every result."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from django_nats.limits import (
    ALL,
    UNSAFE,
    Decision,
    Ratelimited,
    aget_usage,
    ais_ratelimited,
    arequest_key,
    get_usage,
    is_ratelimited,
    ratelimit,
    request_key,
)
from django_nats.limits.usage import RequestUsage

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type


def key_of(group: str, request: HttpRequest) -> str:
    return request.path


def rate_of(group: str, request: HttpRequest) -> str | None:
    return "5/m"


async def arate_of(group: str, request: HttpRequest) -> str | None:
    return "5/m"


def is_internal(request: HttpRequest) -> bool:
    return False


@ratelimit(key="ip", rate="5/m")
@ratelimit(key=key_of, rate=rate_of, method=UNSAFE, group="shop", exempt=is_internal)
@ratelimit(key="user", rate=["10/s", (100, 60)], method="POST", block=False, dry_run=True)
@ratelimit(key="get:q", rate=None, method=ratelimit.ALL, algorithm="fixed", alias="limits")
def page(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse()


@ratelimit(key="ip", rate=arate_of, fail_open=True, timeout=0.5)
async def apage(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Shop(View):
    @method_decorator(ratelimit(key="ip", rate="5/m"))
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


async def results(request: HttpRequest) -> None:
    assert_type(page(request, 1), HttpResponse)
    assert_type(await apage(request), HttpResponse)
    usage = get_usage(request, "shop", key="ip", rate="5/m", method=ALL, increment=True)
    assert_type(usage, RequestUsage | None)
    assert_type(await aget_usage(request, fn=page, key="ip", rate="5/m"), RequestUsage | None)
    assert_type(is_ratelimited(request, fn=page, key="ip", rate="5/m"), bool)
    assert_type(await ais_ratelimited(request, fn=page, key="ip", rate="5/m"), bool)
    assert_type(request_key("ip", "shop", request), str)
    assert_type(await arequest_key(key_of, "shop", request), str)
    try:
        page(request, 1)
    except Ratelimited as error:
        assert_type(error.decision, Decision)
        assert_type(error.decision.retry_after, float)
