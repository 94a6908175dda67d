"""A Django project for WSGI and ASGI with one cache, no database and no middleware.

The environment variable BENCHMARK_CACHE holds the entry of CACHES as JSON. Below /WSGI/ and
/ASGI/, the latter with async views: ``prepare?users=N`` stores the values that
``operations?user=…`` reads, and ``empty`` uses no cache. Each answers with its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any

import django
from django.conf import settings

from .measuring import TIMEOUT, expect, value

if not settings.configured:
    settings.configure(
        SECRET_KEY="benchmark",
        CACHES={"default": json.loads(os.environ["BENCHMARK_CACHE"])},
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["127.0.0.1"],
        LOGGING_CONFIG=None,
    )
    django.setup()

from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

VALUE = value(100)
ITEMS = {f"item-{number}": f"{number}{VALUE}" for number in range(10)}


def prepared(users: int) -> dict[str, Any]:
    """Return the values to be stored for a number of users."""
    found: dict[str, Any] = {"page": VALUE, **ITEMS}
    for user in range(users):
        found |= {f"session-{user}": f"{user}{VALUE}", f"profile-{user}": VALUE}
        found[f"visits-{user}"] = 0
    return found


def answer(view: str) -> HttpResponse:
    # Without Content-Length, a WSGI server would send the answer in chunks.
    return HttpResponse(view, headers={"Content-Length": str(len(view))})


def checked(user: str, read: Collection[Any], items: dict[str, Any], visits: int) -> HttpResponse:
    expect(read == (f"{user}{VALUE}", VALUE, VALUE), f"get: {read}")
    expect(items == ITEMS, f"get_many: {items}")
    expect(visits > 0, f"incr: {visits}")
    return answer("operations")


def empty(request: HttpRequest) -> HttpResponse:
    return answer("empty")


async def aempty(request: HttpRequest) -> HttpResponse:
    return answer("empty")


def prepare(request: HttpRequest) -> HttpResponse:
    cache.set_many(prepared(int(request.GET["users"])), TIMEOUT)
    return answer("prepare")


async def aprepare(request: HttpRequest) -> HttpResponse:
    await cache.aset_many(prepared(int(request.GET["users"])), TIMEOUT)
    return answer("prepare")


def operations(request: HttpRequest) -> HttpResponse:
    user = request.GET["user"]
    session = cache.get(f"session-{user}")
    profile = cache.get(f"profile-{user}")
    page = cache.get("page")
    items = cache.get_many(ITEMS)
    visits = cache.incr(f"visits-{user}")
    cache.set(f"seen-{user}", VALUE, TIMEOUT)
    return checked(user, (session, profile, page), items, visits)


async def aoperations(request: HttpRequest) -> HttpResponse:
    user = request.GET["user"]
    session = await cache.aget(f"session-{user}")
    profile = await cache.aget(f"profile-{user}")
    page = await cache.aget("page")
    items = await cache.aget_many(ITEMS)
    visits = await cache.aincr(f"visits-{user}")
    await cache.aset(f"seen-{user}", VALUE, TIMEOUT)
    return checked(user, (session, profile, page), items, visits)


urlpatterns = [
    path("WSGI/empty", empty),
    path("WSGI/prepare", prepare),
    path("WSGI/operations", operations),
    path("ASGI/empty", aempty),
    path("ASGI/prepare", aprepare),
    path("ASGI/operations", aoperations),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
