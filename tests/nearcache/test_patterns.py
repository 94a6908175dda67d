"""The subject filters of NEAR_CACHE KEYS, and the keys they cover."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest
from django.core.cache.backends.base import default_key_func
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_nats import keys
from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from django_nats.nearcache.patterns import covering, filters, head_of, user_key
from tests.conftest import MakeCache, api

property_settings = settings(deadline=None, max_examples=200)


def matches(subject_filter: str, subject: str) -> bool:
    """Return True if the filter matches the subject, compared token by token."""
    wanted, tokens = subject_filter.split("."), subject.split(".")
    for index, each in enumerate(wanted):
        if each == ">":
            return len(tokens) > index
        if index >= len(tokens) or each not in ("*", tokens[index]):
            return False
    return len(tokens) == len(wanted)


def is_delivered(made: str, by: Sequence[str]) -> bool:
    subject = f"$KV.b.{keys.encode(made)}"
    return any(matches(each, subject) for each in by)


# Heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "site", "a:b", "höhe *"])
def test_keys_begin_with_the_head(make_cache: MakeCache, prefix: str) -> None:
    cache = make_cache(KEY_PREFIX=prefix)
    assert head_of(cache) == f"{prefix}:"
    assert cache.make_key("key", version=7) == f"{prefix}:7:key"


def test_caches_that_make_keys_themselves_have_no_head(
    make_cache: MakeCache, server: NatsServer
) -> None:
    assert head_of(make_cache(KEY_FUNCTION=lambda key, prefix, version: f":1:{key}")) is None

    class Own(NatsCache):
        def make_key(self, key: str, version: int | None = None) -> str:
            return f":1:{key}"

    assert head_of(Own(server.url, {"OPTIONS": {"TOKEN": server.token}})) is None


def test_every_key_is_covered_and_delivered_without_a_head() -> None:
    assert filters("b", None, ["flags:*"]) == ("$KV.b.>",)
    assert covering(None, ["flags:*"])("anything")


@pytest.mark.parametrize(
    ("prefix", "made", "expected"),
    [
        ("", ":1:flags:a", ("flags:a", "1")),
        ("", ":1:", ("", "1")),
        ("", ":v 2:a", ("a", "v 2")),
        ("", "::a", ("a", "")),
        ("site", "site:7:a", ("a", "7")),
        ("site", "other:7:a", None),
        ("site", "site:7", None),
        ("", f":{'7' * 65}:a", None),
    ],
)
def test_user_key_returns_key_and_version(
    prefix: str, made: str, expected: tuple[str, str] | None
) -> None:
    assert user_key(f"{prefix}:", made) == expected


# Filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "patterns", "expected"),
    [
        ("", ["*"], ["=.*.>", "=clear"]),
        ("", ["flags:*", "config:*"], ["=.*.config.>", "=.*.flags.>", "=clear"]),
        ("", ["flags:*", "flags:*"], ["=.*.flags.>", "=clear"]),
        ("", ["flags:*", "flags:a:*", "flags:b"], ["=.*.flags.>", "=clear"]),
        ("", ["flags:*", "*"], ["=.*.>", "=clear"]),
        ("", ["f*"], ["=.*.>", "=clear"]),
        ("", ["flag"], ["=.*.flag", "=clear"]),
        ("site:a", ["flags:*"], ["=clear", "site.a.*.flags.>"]),
        ("[x]*", ["flags:*"], ["=5Bx=5D=2A.*.flags.>", "=clear"]),
        ("", [f"{'k' * 900}"], [">"]),
        ("", [f"{'k' * 900}:*"], ["=.*.>", "=clear"]),
        ("p" * 900, ["flags:*"], [">"]),
    ],
)
def test_filters_are_as_narrow_as_possible(
    prefix: str, patterns: list[str], expected: list[str]
) -> None:
    found = filters("b", f"{prefix}:", patterns)
    assert [each.removeprefix("$KV.b.") for each in found] == expected


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
token = st.one_of(st.sampled_from(["flags", "a", "b", "=h", "x" * 300, "é" * 40]), text)
names = st.lists(token, min_size=1, max_size=5).map(":".join)
versions = st.one_of(st.integers(0, 10**9), text, names)
globs = st.lists(
    st.one_of(token, st.sampled_from(["*", "?", "f*", "[a-z]", "a\\*"])), min_size=1, max_size=5
).map(":".join)


@property_settings
@given(
    prefix=names,
    version=versions,
    key=names,
    patterns=st.lists(globs, min_size=1, max_size=3),
    literally=st.booleans(),
)
@example("", "é" * 60, f"{'x' * 650}:{'y' * 900}", [f"{'x' * 650}:*"], False)
@example("", "+" * 64, f"{'x' * 690}:{'y' * 900}", [f"{'x' * 690}:*"], False)
@example("", "1" * 64, "x" * 700, ["x" * 700], False)
def test_changes_of_every_covered_key_are_delivered(
    prefix: str,
    version: object,
    key: str,
    patterns: list[str],
    literally: bool,
) -> None:
    head = f"{prefix}:"
    if literally:
        patterns = [*patterns, key.replace("\\", "\\\\")]
    made = default_key_func(key, prefix, version)

    if covering(head, patterns)(made):
        assert is_delivered(made, filters("b", head, patterns))


@property_settings
@given(prefix=names, version=st.integers(0, 10**9), key=names, more=globs)
def test_every_key_of_a_pattern_is_covered_with_any_prefix_and_version(
    prefix: str, version: int, key: str, more: str
) -> None:
    head = f"{prefix}:"
    made = default_key_func(key, prefix, version)
    for pattern in ("*", key.partition(":")[0].translate(ESCAPED) + "*"):
        assert covering(head, [more, pattern])(made)
        assert is_delivered(made, filters("b", head, [more, pattern]))


ESCAPED = str.maketrans({each: f"\\{each}" for each in "\\*?[]"})


@property_settings
@given(
    prefix=names,
    patterns=st.lists(globs, min_size=1, max_size=6),
)
def test_a_clear_is_delivered_once_and_filters_do_not_overlap(
    prefix: str, patterns: list[str]
) -> None:
    found = filters("b", f"{prefix}:", patterns)
    assert sum(matches(each, "$KV.b.=clear") for each in found) == 1
    for one in found:
        assert not any(matches(each, one) for each in found if each != one)


@pytest.mark.parametrize("head", [":", "site:a:", None])
def test_the_server_accepts_the_filters(head: str | None, cache: NatsCache) -> None:
    """The server refuses filters that overlap."""
    cache.set("key", 1)
    stream = cache.bucket.config.stream
    patterns = ["flags:*", "flags:on:*", "flag", "f*", "a?:b", "config:[ab]*", "größe:*", "x" * 900]
    for chosen in (patterns, patterns[:3], patterns[1:3] + patterns[5:7], ["*"]):
        config = {
            "name": secrets.token_hex(4),
            "deliver_subject": "nobody",
            "ack_policy": "none",
            "filter_subjects": list(filters(cache.bucket.config.name, head, chosen)),
        }
        document = {"stream_name": stream, "config": config}
        answer = api(cache, f"CONSUMER.CREATE.{stream}.{config['name']}", document)
        assert "error" not in answer
