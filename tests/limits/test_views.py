"""The names of views, by which their requests are counted."""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_nats.limits.views import is_async_view, view_name

HERE = __name__


def page(request: HttpRequest, number: int = 1) -> HttpResponse:
    return HttpResponse()


async def apage(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Feed:
    def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    def page(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    @classmethod
    def front(cls, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Shop(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class AsyncShop(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


@api_view(["GET"])
def api_page(request: Any) -> Response:
    return Response()


@api_view(["GET"])
def other_api_page(request: Any) -> Response:
    return Response()


class Api(APIView):
    pass


class Goods(ViewSet):
    def list(self, request: Any) -> Response:
        return Response()


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (page, "page"),
        (apage, "apage"),
        (never_cache(page), "page"),
        (never_cache(apage), "apage"),
        (partial(page, number=2), "page"),
        (never_cache(partial(partial(page), number=2)), "page"),
        (Feed(), "Feed"),
        (Feed().page, "Feed.page"),
        (Feed.front, "Feed.front"),
        (Shop.as_view(), "Shop"),
        (AsyncShop.as_view(), "AsyncShop"),
        (never_cache(Shop.as_view()), "Shop"),
        (api_page, "api_page"),
        (other_api_page, "other_api_page"),
        (Api.as_view(), "Api"),
        (Goods.as_view({"get": "list"}), "Goods"),
    ],
)
def test_a_view_has_a_dotted_name(view: Any, name: str) -> None:
    assert view_name(view) == f"{HERE}.{name}"


def named(name: str = "") -> Any:
    """Return a decorator of methods, whose response is the view's name and whether it is async."""

    def decorator(view: Any) -> Any:
        @wraps(view)
        def wrapper(request: HttpRequest) -> HttpResponse:
            return HttpResponse(f"{view_name(view)} {is_async_view(view)}")

        return wrapper

    return method_decorator([never_cache, decorator], name=name) if name else decorator


class Parent(View):
    @method_decorator(named())
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    @method_decorator([named(), never_cache])
    async def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Child(Parent):
    pass


@named("dispatch")
class Dispatched(Shop):
    pass


@named("dispatch")
class AsyncDispatched(AsyncShop):
    pass


@pytest.mark.parametrize(
    ("view", "method", "expected"),
    [
        (Parent, "get", "Parent.get False"),
        (Child, "get", "Child.get False"),
        (Parent, "post", "Parent.post True"),
        (Child, "post", "Child.post True"),
        (Dispatched, "dispatch", "Dispatched.dispatch False"),
        (AsyncDispatched, "dispatch", "AsyncDispatched.dispatch True"),
    ],
)
def test_a_method_has_the_name_of_the_views_own_class(
    view: Any, method: str, expected: str
) -> None:
    response = getattr(view(), method)(RequestFactory().get("/"))
    assert response.content.decode() == f"{HERE}.{expected}"


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (page, False),
        (apage, True),
        (partial(apage), True),
        (never_cache(apage), True),
        (Feed(), False),
        (Shop.as_view(), False),
        (AsyncShop.as_view(), True),
        (AsyncShop().get, True),
        (AsyncShop().dispatch, True),
        (Shop().dispatch, False),
    ],
)
def test_a_view_that_returns_an_awaitable_is_asynchronous(view: Any, expected: bool) -> None:
    assert is_async_view(view) is expected
