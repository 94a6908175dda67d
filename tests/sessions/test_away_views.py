"""Pages that visitors open while the server of their sessions is away."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client
from django.urls import path
from django.views import defaults

from django_nats.exceptions import Unavailable
from tests.support.outage import Outage
from tests.support.sessions import SESSIONS, Request


def show(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.session.items()))


def put(request: HttpRequest) -> HttpResponse:
    request.session["cart"] = 1
    return HttpResponse()


def server_error(request: HttpRequest) -> HttpResponse:
    if isinstance(sys.exc_info()[1], Unavailable):
        return HttpResponse("Back soon", status=503)
    return defaults.server_error(request)


urlpatterns = [path("show", show), path("put", put)]
handler500 = server_error


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    settings.SESSION_ENGINE = SESSIONS
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]


def visitor(**stored: Any) -> Client:
    """Return the browser of a visitor who has a session."""
    request = Request().set(**stored)
    if stored.get("browser"):
        request.call("set_expiry", 0)
    client = Client(raise_request_exception=False)
    client.cookies[django_settings.SESSION_COOKIE_NAME] = request.save().key
    return client


@pytest.mark.parametrize("save_every_request", [False, True])
@pytest.mark.parametrize("page", ["show", "put"])
def test_a_page_is_a_503_and_the_visitor_keeps_the_session(
    outage: Outage, settings: Any, page: str, save_every_request: bool
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = save_every_request
    outage.use()
    client = visitor(user=1)
    outage.begin()
    response = client.get(f"/{page}")
    assert (response.status_code, response.content) == (503, b"Back soon")
    assert not response.cookies
    outage.end()
    assert client.get("/show").json() == {"user": 1}


@pytest.mark.parametrize("page", ["show", "put"])
def test_with_fail_open_a_page_has_an_empty_session_and_sends_no_cookie(
    outage: Outage, page: str
) -> None:
    outage.use(FAIL_OPEN=True)
    client = visitor(user=1)
    outage.begin()
    response = client.get(f"/{page}")
    assert response.status_code == 200
    assert not response.cookies
    assert response["Vary"] == "Cookie"
    outage.end()
    assert client.get("/show").json() == {"user": 1}


def test_with_fail_open_no_cookie_gets_a_longer_life_than_its_session(
    outage: Outage, settings: Any
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    outage.use(FAIL_OPEN=True)
    client = visitor(browser=True)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    outage.begin()
    sent = client.get("/show").cookies[settings.SESSION_COOKIE_NAME]
    assert (sent.value, sent["max-age"], sent["expires"]) == (key, "", "")


def test_a_new_session_is_an_error_with_fail_open_too(outage: Outage) -> None:
    outage.use(FAIL_OPEN=True).get("other")
    outage.begin()
    response = Client(raise_request_exception=False).get("/put")
    assert response.status_code == 503
    assert not response.cookies


def test_a_page_without_a_session_is_served(outage: Outage) -> None:
    outage.use().get("other")
    outage.begin()
    assert Client().get("/show").json() == {}
