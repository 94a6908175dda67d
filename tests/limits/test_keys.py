"""Keys of limits, and the tokens of subjects that are made of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from hypothesis import example, given
from hypothesis import strategies as st

from django_nats import keys
from django_nats.limits.keys import MAX_READABLE_BYTES, key_text, key_token

WHERE = 'Limit("api")'
SAFE = set("-/_=.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
texts = st.text(st.characters(exclude_categories=()), max_size=200)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("", ""),
        (7, "7"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (User(pk=7), "auth.user.7"),
        (SimpleLazyObject(lambda: User(pk=7)), "auth.user.7"),
    ],
)
def test_a_key_has_a_text(key: Any, text: str) -> None:
    assert key_text(key, WHERE) == text


@pytest.mark.parametrize("key", [None, True, 1.5, b"a", ("a",), Decimal(1), AnonymousUser()])
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r'Limit\("api"\): the key must be a string'):
        key_text(key, WHERE)


def test_an_instance_that_is_not_saved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"auth\.User that is not saved"):
        key_text(User(), WHERE)


@example(text="\ud800", readable=False)
@example(text="\ud800", readable=True)
@given(text=texts, readable=st.booleans())
def test_a_token_has_no_wildcard_no_dot_and_a_bounded_length(text: str, readable: bool) -> None:
    made = key_token(text, readable=readable)
    assert made
    assert SAFE - {"."} >= set(made)
    assert len(made) <= MAX_READABLE_BYTES


@given(texts, texts, st.booleans())
def test_no_two_keys_share_a_token(one: str, other: str, readable: bool) -> None:
    same = key_token(one, readable=readable) == key_token(other, readable=readable)
    assert same == (one == other)


def test_a_readable_token_is_the_text_unless_that_is_too_long() -> None:
    assert key_token("user-7", readable=True) == "user-7"
    assert key_token("a.*", readable=True) == keys.token("a.*") == "a=2E=2A"
    assert key_token("*" * 200, readable=True).startswith("=h")


def test_a_hash_tells_nothing_of_the_key_without_the_secret_key() -> None:
    made = key_token("203.0.113.9", readable=False)
    assert len(made) == 20
    with override_settings(SECRET_KEY="another"):
        assert key_token("203.0.113.9", readable=False) != made
    assert key_token("203.0.113.9", readable=False) == made


def test_a_secret_key_of_bytes_is_taken() -> None:
    made = key_token("a", readable=False)
    with override_settings(SECRET_KEY=b"only-for-tests"):
        assert key_token("a", readable=False) == made
