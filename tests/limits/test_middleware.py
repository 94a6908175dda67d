"""The middleware that adds the headers of limits to responses that no view has returned."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from rest_framework.response import Response
from rest_framework.views import APIView

from django_nats.limits import Ratelimited, ratelimit, request_limits

MIDDLEWARE = ["django_nats.limits.middleware.limit_headers"]

pytestmark = [
    pytest.mark.usefixtures("alias", "time"),
    pytest.mark.filterwarnings("ignore:No directory at"),
]


@pytest.fixture(autouse=True)
def without_memory() -> None:
    """Let no test know what another was refused: views are the same, streams are not."""
    request_limits._limit.cache_clear()


@ratelimit(key="ip", rate="1/d")
def page(request: HttpRequest) -> HttpResponse:
    raise Http404


@ratelimit(key="ip", rate="1/d")
async def apage(request: HttpRequest) -> HttpResponse:
    raise Http404


def unlimited(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    status = 429 if isinstance(exception, Ratelimited) else 403
    return HttpResponse(str(exception), status=status)


urlpatterns = [path("page", page), path("apage", apage), path("unlimited", unlimited)]


class WithoutHandlers:
    """A URLconf whose page for status 403 is Django's own."""

    urlpatterns = urlpatterns


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE)
@pytest.mark.parametrize("url", ["/page", "/apage"])
async def test_pages_that_django_makes_of_exceptions_have_headers(
    url: str, async_client: AsyncClient
) -> None:
    missing, refused = [await async_client.get(url) for _ in range(2)]
    assert missing.status_code == 404
    assert missing.headers["RateLimit-Remaining"] == "0"
    assert "Retry-After" not in missing.headers
    assert refused.status_code == 429
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE)
def test_it_serves_wsgi_as_well(client: Client) -> None:
    client.get("/page")
    refused = client.get("/page")
    wait = refused.headers["Retry-After"]
    assert refused.content == f"Too many requests. Try again in {wait} s.".encode()


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=MIDDLEWARE)
def test_a_request_without_a_limit_gets_no_headers(client: Client) -> None:
    assert "RateLimit-Limit" not in client.get("/unlimited").headers


class Api(APIView):
    @method_decorator(ratelimit(key="ip", rate="1/d"))
    def get(self, request: Any) -> Response:
        return Response({"left": request.limit_decision.remaining})


class ApiUrls:
    urlpatterns = [path("api", Api.as_view())]


@override_settings(ROOT_URLCONF=ApiUrls, MIDDLEWARE=MIDDLEWARE)
def test_views_of_rest_framework_have_headers(client: Client) -> None:
    answered, refused = [client.get("/api") for _ in range(2)]
    assert answered.json() == {"left": 0}
    assert answered.headers["RateLimit-Remaining"] == "0"
    wait = refused.headers["Retry-After"]
    assert refused.status_code == 403
    assert refused.json() == {"detail": f"Too many requests. Try again in {wait} s."}


@override_settings(ROOT_URLCONF=WithoutHandlers, MIDDLEWARE=MIDDLEWARE)
def test_djangos_own_page_for_status_403_has_headers(client: Client) -> None:
    client.get("/page")
    refused = client.get("/page")
    assert isinstance(refused, HttpResponseForbidden)
    assert "Retry-After" in refused.headers
