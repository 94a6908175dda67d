"""What requests are counted by: the words of ``key=``."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject
from hypothesis import given
from hypothesis import strategies as st

from django_nats.limits.requests import arequest_key, parse_key, request_key

WHERE = "@ratelimit in shop.views, line 7"
HERE = f"{__name__}.by_path"
NOT_A_FUNCTION = "not a function"


def by_path(group: str, request: HttpRequest) -> str:
    return f"{group} {request.path}"


async def by_path_async(group: str, request: HttpRequest) -> str:
    return by_path(group, request)


def make(user: Any = None, **params: Any) -> HttpRequest:
    request = RequestFactory().post("/buy?q=shoes", {"name": "ann"}, **params)
    request.user = AnonymousUser() if user is None else user
    return request


USER = User(pk=1, username="ann")


@pytest.mark.parametrize(
    ("key", "user", "expected"),
    [
        ("ip", None, "ip:127.0.0.1"),
        ("ip", USER, "ip:127.0.0.1"),
        ("user", USER, "user:1"),
        ("user", None, "user:"),
        ("user_or_ip", USER, "user:1"),
        ("user_or_ip", None, "ip:127.0.0.1"),
        ("header:x-api-key", None, "header:x-api-key:secret"),
        ("header:X-API-KEY", None, "header:x-api-key:secret"),
        ("header:x_api_key", None, "header:x-api-key:secret"),
        ("header:missing", None, "header:missing:"),
        ("header:content-type", None, "header:content-type:text/plain"),
        ("get:q", None, "get:q:shoes"),
        ("get:missing", None, "get:missing:"),
        ("get:a:b", None, "get:a%3Ab:"),
        ("post:missing", None, "post:missing:"),
        (by_path, None, "key:shop /buy"),
        (HERE, None, "key:shop /buy"),
        (lambda group, request: 7, None, "key:7"),
        (lambda group, request: UUID(int=7), None, f"key:{UUID(int=7)}"),
        (lambda group, request: request.user, USER, "key:auth.user.1"),
    ],
)
async def test_a_key_is_the_text_of_what_it_names(key: Any, user: Any, expected: str) -> None:
    request = make(user, HTTP_X_API_KEY="secret", content_type="text/plain")
    assert request_key(key, "shop", request) == expected
    assert await arequest_key(key, "shop", request) == expected


def test_a_posted_field_is_a_key() -> None:
    assert request_key("post:name", "shop", make()) == "post:name:ann"


async def test_a_function_may_be_a_coroutine_function() -> None:
    assert await arequest_key(by_path_async, "shop", make()) == "key:shop /buy"
    assert await arequest_key(f"{__name__}.by_path_async", "shop", make()) == "key:shop /buy"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "users",
        "IP",
        "ip ",
        "ip:",
        "ip:1",
        "user:1",
        "header",
        "header:",
        "header:x y",
        "header:x:y",
        "get:",
        "post",
        "cookie:sessionid",
        ".",
        "shop.",
        "shop views",
        "1.2.3.4",
    ],
)
def test_an_unknown_word_is_an_error_that_names_the_place_and_what_is_right(key: str) -> None:
    match = rf"^{re.escape(WHERE)}: the key {re.escape(repr(key))} is unknown\. It must be "
    with pytest.raises(ValueError, match=match):
        parse_key(key, WHERE)


@pytest.mark.parametrize("key", [None, 1, b"ip", ["ip"]])
def test_another_type_is_an_error_that_names_the_place(key: object) -> None:
    with pytest.raises(TypeError, match=rf"^{re.escape(WHERE)}: the key cannot be "):
        parse_key(key, WHERE)


@pytest.mark.parametrize("value", [None, 1.5, b"ann", ["ann"], True])
def test_a_function_that_returns_another_type_is_an_error_that_names_the_group(
    value: object,
) -> None:
    with pytest.raises(TypeError, match=r"^The key of 'shop': the key must be a string, "):
        request_key(lambda group, request: value, "shop", make())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no.such.function", "cannot be imported"),
        (f"{__name__}.missing", "cannot be imported"),
        (f"{__name__}.NOT_A_FUNCTION", "is not a function, but str"),
    ],
)
def test_a_path_is_imported_at_the_first_request(path: str, reason: str) -> None:
    assert parse_key(path, WHERE)
    with pytest.raises(ImproperlyConfigured, match=rf"^The key of 'shop': '{path}' {reason}"):
        request_key(path, "shop", make())


@pytest.mark.parametrize("key", ["user", "user_or_ip"])
def test_a_user_needs_the_middleware(key: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="AuthenticationMiddleware"):
        request_key(key, "shop", RequestFactory().get("/"))


@pytest.mark.parametrize("key", ["user", "user_or_ip"])
async def test_an_event_loop_loads_the_user_without_blocking(key: str) -> None:
    def load() -> User:
        raise AssertionError("The database was asked from the event loop")

    async def auser() -> User:
        return USER

    request = make(SimpleLazyObject(load))
    request.auser = auser
    assert await arequest_key(key, "shop", request) == "user:1"


async def test_an_event_loop_takes_the_user_that_a_middleware_has_set() -> None:
    async def auser() -> AnonymousUser:
        return AnonymousUser()

    request = make(USER)
    request.auser = auser
    assert await arequest_key("user", "shop", request) == "user:1"


def test_a_thread_loads_the_user_itself() -> None:
    request = make(SimpleLazyObject(lambda: USER))
    request.auser = None
    assert request_key("user", "shop", request) == "user:1"


KEYS: list[Any] = ["ip", "user", "header:a", "header:b", "get:a", "get:b", "get:a:b", "post:a"]


@given(st.text(), st.text())
def test_distinct_kinds_of_keys_never_have_the_same_text(one: str, other: str) -> None:
    def texts(value: str) -> list[str]:
        request = RequestFactory().get("/")
        request.META |= {"HTTP_A": value, "HTTP_B": value, "REMOTE_ADDR": "1.1.1.1"}
        fields = {"a": value, "b": value, "a:b": value}
        request.GET, request.POST = fields, fields  # type: ignore[assignment]
        request.user = User(pk=value)
        return [request_key(key, "shop", request) for key in [*KEYS, lambda *_: value]]

    for (i, first), (j, second) in combinations(enumerate(texts(one) + texts(other)), 2):
        assert first != second or i % 9 == j % 9


def test_user_1_and_address_1_are_distinct() -> None:
    own = request_key(lambda *_: "user:1", "shop", make())
    assert len({own, request_key("user", "shop", make(USER)), "ip:1"}) == 3
