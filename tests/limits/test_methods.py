"""The HTTP methods that a limit counts."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.limits import ALL, UNSAFE, ratelimit
from django_nats.limits.methods import covers, parse_methods


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (ALL, ()),
        ("post", ("POST",)),
        (["POST", "get", "GET"], ("GET", "POST")),
        (("GET",), ("GET",)),
        (UNSAFE, ("DELETE", "PATCH", "POST", "PUT")),
    ],
)
def test_methods_are_a_name_or_a_list_of_names(method: Any, expected: Any) -> None:
    assert parse_methods(method, "here") == expected


@pytest.mark.parametrize("method", [[], (), "", "GET,POST", [""], ["GET "]])
def test_what_names_no_method_is_refused(method: Any) -> None:
    with pytest.raises(ValueError, match=r"^here: method is .* no HTTP method"):
        parse_methods(method, "here")


@pytest.mark.parametrize("method", [1, True, [1], (None,), {"GET"}, b"GET"])
def test_another_type_is_refused(method: Any) -> None:
    with pytest.raises(TypeError, match=r"^here: method must be a name such as "):
        parse_methods(method, "here")


def test_without_methods_all_are_covered() -> None:
    assert covers((), "BREW")


def test_only_these_methods_are_covered() -> None:
    assert covers(("POST",), "POST")
    assert not covers(("POST",), "GET")
    assert not covers(("POST",), "HEAD")


def test_get_covers_head_which_the_same_view_answers() -> None:
    assert covers(("GET",), "HEAD")
    assert not covers(("HEAD",), "GET")


def test_the_decorator_has_the_names_of_methods() -> None:
    assert (ratelimit.ALL, ratelimit.UNSAFE) == (ALL, UNSAFE)
