"""Whole requests of one visitor that overlap, with Django's middleware, logins and logouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.urls import path

pytestmark = pytest.mark.django_db(transaction=True)


class Meanwhile:
    """What happens after a view has loaded its session, and before that is saved."""

    def __init__(self) -> None:
        self.happens: list[Callable[[], object]] = []

    def pass_(self) -> None:
        while self.happens:
            self.happens.pop()()


meanwhile = Meanwhile()


def show(request: HttpRequest) -> HttpResponse:
    keys = request.session.keys()
    meanwhile.pass_()
    return JsonResponse({key: request.session[key] for key in keys if not key.startswith("_")})


def put(request: HttpRequest, key: str) -> HttpResponse:
    request.session.get(key)
    meanwhile.pass_()
    request.session[key] = True
    return HttpResponse()


def log_in(request: HttpRequest) -> HttpResponse:
    request.session.get("anything")
    meanwhile.pass_()
    login(request, get_user_model().objects.get(username="ada"))
    return HttpResponse()


def log_out(request: HttpRequest) -> HttpResponse:
    request.session.get("anything")
    meanwhile.pass_()
    logout(request)
    return HttpResponse()


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


urlpatterns = [
    path("show", show),
    path("put/<key>", put),
    path("login", log_in),
    path("logout", log_out),
    path("who", who),
]


@pytest.fixture(autouse=True)
def site(settings: Any, engine: str, session_cache: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    get_user_model().objects.create_user("ada")
    yield
    assert not meanwhile.happens


def same_visitor(client: Client) -> Client:
    """Return another tab of the visitor's browser, with the cookies it has now."""
    tab = Client()
    tab.cookies[django_settings.SESSION_COOKIE_NAME] = cookie(client)
    return tab


def cookie(client: Client) -> str:
    found = client.cookies.get(django_settings.SESSION_COOKIE_NAME)
    return found.value if found else ""


def visit(client: Client, page: str) -> int:
    return int(client.get(f"/{page}").status_code)


def overlapped(client: Client, page: str, other: str) -> tuple[int, Client]:
    """Request a page, and another one meanwhile. Return the first status, and the other's tab."""
    tab = same_visitor(client)
    meanwhile.happens.append(partial(visit, tab, other))
    return visit(client, page), tab


def test_two_views_that_overlap_both_keep_their_change() -> None:
    client = Client()
    visit(client, "put/old")
    status, _ = overlapped(client, "put/cart", "put/language")
    assert status == 200
    assert client.get("/show").json() == {"old": True, "cart": True, "language": True}


def test_a_login_keeps_what_another_request_stores_before_it() -> None:
    client = Client()
    visit(client, "put/old")
    status, _ = overlapped(client, "login", "put/cart")
    assert status == 200
    assert client.get("/show").json() == {"old": True, "cart": True}
    assert client.get("/who").content == b"ada"


def test_a_view_that_overlaps_a_login_does_not_bring_the_old_session_back() -> None:
    client = Client()
    visit(client, "put/old")
    old_key = cookie(client)
    status, tab = overlapped(client, "put/cart", "login")
    assert status == 400  # SessionInterrupted
    assert tab.get("/who").content == b"ada"
    thief = Client()
    thief.cookies[django_settings.SESSION_COOKIE_NAME] = old_key
    assert thief.get("/show").json() == {}


def test_a_view_that_overlaps_a_logout_does_not_bring_the_session_back() -> None:
    client = Client()
    visit(client, "login")
    key = cookie(client)
    status, _ = overlapped(client, "put/cart", "logout")
    assert status == 400
    assert cookie(client) == key
    assert client.get("/who").content == b""
    assert client.get("/show").json() == {}


def test_two_logins_that_overlap_both_succeed() -> None:
    client = Client()
    visit(client, "put/old")
    status, tab = overlapped(client, "login", "login")
    assert status == 200
    for each in (client, tab):
        assert each.get("/who").content == b"ada"
        assert each.get("/show").json() == {"old": True}


def test_two_logouts_that_overlap_both_succeed() -> None:
    client = Client()
    visit(client, "login")
    key = cookie(client)
    status, tab = overlapped(client, "logout", "logout")
    assert status == 200
    assert cookie(client) == cookie(tab) == ""
    tab.cookies[django_settings.SESSION_COOKIE_NAME] = key
    assert tab.get("/who").content == b""


def test_a_logout_ends_what_another_request_has_just_saved() -> None:
    client = Client()
    visit(client, "login")
    key = cookie(client)
    overlapped(client, "logout", "put/cart")
    late = Client()
    late.cookies[django_settings.SESSION_COOKIE_NAME] = key
    assert late.get("/show").json() == {}


def test_a_request_that_only_reads_undoes_nothing_with_save_every_request(settings: Any) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    client = Client()
    visit(client, "put/old")
    overlapped(client, "show", "put/cart")
    assert client.get("/show").json() == {"old": True, "cart": True}
