"""The functions of the pages on limits, also while the server of limits is away."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_nats.counters import Counters
from django_nats.exceptions import Unavailable
from django_nats.limits import Decision, Limit, Rate, Ratelimited, request_key
from tests.counters.conftest import Configure
from tests.support.ports import free_port
from tests.test_docs import DOCS, blocks

LOCMEM = "django.template.loaders.locmem.Loader"


def function(page: Path, name: str) -> Any:
    """Return a function that a page defines, with the names that earlier blocks import."""
    names: dict[str, Any] = {
        "HttpResponse": HttpResponse,
        "Limit": Limit,
        "Ratelimited": Ratelimited,
        "request_key": request_key,
    }
    (source,) = (each.source for each in blocks(page) if f"def {name}(" in each.source)
    exec(compile(source, page, "exec"), names)
    return names[name]


@pytest.fixture
def log_in() -> Any:
    return function(DOCS / "how-to/limits.md", "log_in")


@pytest.fixture
def handler403(settings: Any) -> Any:
    templates = [(LOCMEM, {"limited.html": "Wait for {{ minutes }} min"})]
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": templates},
        }
    ]
    return function(DOCS / "how-to/moving-from-django-ratelimit.md", "handler403")


def attempt(password: str) -> HttpRequest:
    request = RequestFactory().post("/login/", {"username": "ann", "password": password})
    request.session = SessionStore()
    return request


def allow_the_right_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def authenticate(request: HttpRequest, username: str, password: str) -> User | None:
        return User(pk=1, username=username) if password == "right" else None

    monkeypatch.setattr(auth, "authenticate", authenticate)
    monkeypatch.setattr(auth, "login", lambda request, user: None)


def test_a_login_forgets_the_failures_before_it(
    counters: Counters, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_the_right_password(monkeypatch)
    for _ in range(2):
        assert [log_in(attempt("wrong")).status_code for _ in range(4)] == [200] * 4
        assert log_in(attempt("right")).content == b"Welcome"
    assert [log_in(attempt("wrong")).status_code for _ in range(6)] == [200] * 5 + [429]
    assert log_in(attempt("right")).status_code == 429


def test_a_login_succeeds_if_the_server_goes_away_before_the_reset(
    counters: Counters, configure: Configure, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def authenticate(request: HttpRequest, username: str, password: str) -> User:
        go_away(configure)
        return User(pk=1, username=username)

    allow_the_right_password(monkeypatch)
    monkeypatch.setattr(auth, "authenticate", authenticate)
    assert log_in(attempt("right")).content == b"Welcome"


def test_a_login_is_refused_with_503_while_the_server_is_away(
    configure: Configure, log_in: Any
) -> None:
    go_away(configure)
    assert log_in(attempt("right")).status_code == 503


def go_away(configure: Configure) -> None:
    """Let limits count at an address where no server listens."""
    configure(LOCATION=f"nats://127.0.0.1:{free_port()}", TOKEN="", CONNECT_TIMEOUT=0.2)


def test_a_page_says_how_long_to_wait(handler403: Any) -> None:
    refusal = Ratelimited(Decision(False, Rate(5, 3600), 0, 61.0, 61.0))
    response = handler403(RequestFactory().get("/"), refusal)
    assert (response.status_code, response.content) == (429, b"Wait for 2 min")
    never = Ratelimited(Decision(False, Rate(0, 1), 0, 0.0, inf))
    assert handler403(RequestFactory().get("/"), never).content == b"Wait for None min"


def test_a_page_has_the_status_503_if_the_server_did_not_answer(handler403: Any) -> None:
    refusal = Ratelimited(Decision(False, error=Unavailable()))
    assert handler403(RequestFactory().get("/"), refusal).status_code == 503


def test_a_page_leaves_other_refusals_alone(handler403: Any) -> None:
    response = handler403(RequestFactory().get("/"), PermissionDenied())
    assert (response.status_code, response.content) == (403, b"Forbidden")
