from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence

import pytest
from django.core.cache.backends.base import default_key_func
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_nats import keys
from django_nats.cache import NatsCache
from django_nats.nearcache.shape import Shape, covering, filters, shape_of
from tests.conftest import api

law = settings(deadline=None, max_examples=200)


def maker(prefix: str = "", version: object = 1) -> Callable[..., str]:
    """What a cache of Django's makes of its keys, with a prefix and a version of its own."""

    def make_key(key: str, version: object = version) -> str:
        return str(default_key_func(key, prefix, version))

    return make_key


def lets_through(subject_filter: str, subject: str) -> bool:
    """As a server decides it: token by token."""
    wanted, tokens = subject_filter.split("."), subject.split(".")
    for index, each in enumerate(wanted):
        if each == ">":
            return len(tokens) > index
        if index >= len(tokens) or each not in ("*", tokens[index]):
            return False
    return len(tokens) == len(wanted)


def told_of(made: str, by: Sequence[str]) -> bool:
    subject = f"$KV.b.{keys.encode(made)}"
    return any(lets_through(each, subject) for each in by)


# The shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_key", "expected"),
    [
        (maker(), Shape(":", ":", "")),
        (maker("site"), Shape("site:", ":", "")),
        (maker("a:b"), Shape("a:b:", ":", "")),
        (maker("höhe *"), Shape("höhe *:", ":", "")),
        (lambda key, version: f"{version}:{key}", Shape("", ":", "")),
        (lambda key, version: f"p:{version}:d:{key}", Shape("p:", ":d:", "")),
        (lambda key, version: f"p:{version}:{key}:end", Shape("p:", ":", ":end")),
    ],
)
def test_of_keys_in_which_version_and_key_are_apart(
    make_key: Callable[..., str], expected: Shape
) -> None:
    assert shape_of(make_key) == expected


@pytest.mark.parametrize(
    "make_key",
    [
        pytest.param(lambda key, version: f"{key}:{version}", id="reversed"),
        pytest.param(lambda key, version: key, id="without a version"),
        pytest.param(lambda key, version: f"v1:{key}", id="constant version"),
        pytest.param(lambda key, version: f"p:v{version}:{key}", id="version in a token"),
        pytest.param(lambda key, version: f"p{version}:{key}", id="version after a prefix"),
        pytest.param(lambda key, version: f"p:{version}-{key}", id="key in the version's token"),
        pytest.param(lambda key, version: f":{version}:{version}:{key}", id="version twice"),
        pytest.param(lambda key, version: f":{version}:{key}:{key}", id="key twice"),
        pytest.param(
            lambda key, version: hashlib.sha256(f"{version}{key}".encode()).hexdigest(), id="hashed"
        ),
        pytest.param(
            lambda key, version: f":{version}:{hashlib.sha256(key.encode()).hexdigest()}",
            id="hashed key",
        ),
        pytest.param(lambda key, version: key[-1000], id="raises"),
    ],
)
def test_of_keys_in_which_they_are_not(make_key: Callable[..., str]) -> None:
    assert shape_of(make_key) is None


def test_without_a_shape_every_key_is_covered_and_every_change_told() -> None:
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
def test_the_key_of_a_user(prefix: str, made: str, expected: tuple[str, str] | None) -> None:
    shape = shape_of(maker(prefix))
    assert shape is not None
    assert shape.user_key(made) == expected


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
def test_filters_are_as_narrow_as_they_can_be(
    prefix: str, patterns: list[str], expected: list[str]
) -> None:
    found = filters("b", shape_of(maker(prefix)), patterns)
    assert [each.removeprefix("$KV.b.") for each in found] == expected


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
token = st.one_of(st.sampled_from(["flags", "a", "b", "=h", "x" * 300, "é" * 40]), text)
names = st.lists(token, min_size=1, max_size=5).map(":".join)
versions = st.one_of(st.integers(0, 10**9), text, names)
globs = st.lists(
    st.one_of(token, st.sampled_from(["*", "?", "f*", "[a-z]", "a\\*"])), min_size=1, max_size=5
).map(":".join)
KEY_FUNCTIONS: list[Callable[[str, str, object], str]] = [
    default_key_func,
    lambda key, prefix, version: f"{version}:{key}",
    lambda key, prefix, version: f"{prefix}:{version}:d:{key}:end",
    lambda key, prefix, version: f"{key}:{version}",
]


@law
@given(
    make=st.sampled_from(KEY_FUNCTIONS),
    prefix=names,
    version=versions,
    key=names,
    patterns=st.lists(globs, min_size=1, max_size=3),
    literally=st.booleans(),
)
@example(KEY_FUNCTIONS[2], "p", "1:2", "flags", ["flags"], True)
@example(KEY_FUNCTIONS[0], "", "é" * 60, f"{'x' * 650}:{'y' * 900}", [f"{'x' * 650}:*"], False)
@example(KEY_FUNCTIONS[0], "", "+" * 64, f"{'x' * 690}:{'y' * 900}", [f"{'x' * 690}:*"], False)
@example(KEY_FUNCTIONS[0], "", "1" * 64, "x" * 700, ["x" * 700], False)
def test_every_key_that_is_covered_is_told_of(
    make: Callable[[str, str, object], str],
    prefix: str,
    version: object,
    key: str,
    patterns: list[str],
    literally: bool,
) -> None:
    shape = shape_of(lambda key, version: make(key, prefix, version))
    if literally:
        patterns = [*patterns, key.replace("\\", "\\\\")]
    made = make(key, prefix, version)

    if covering(shape, patterns)(made):
        assert told_of(made, filters("b", shape, patterns))


@law
@given(prefix=names, version=st.integers(0, 10**9), key=names, more=globs)
def test_every_key_of_a_pattern_is_covered_whatever_its_prefix_and_version(
    prefix: str, version: int, key: str, more: str
) -> None:
    shape = shape_of(maker(prefix))
    made = default_key_func(key, prefix, version)
    for pattern in ("*", key.partition(":")[0].translate(ESCAPED) + "*"):
        assert covering(shape, [more, pattern])(made)
        assert told_of(made, filters("b", shape, [more, pattern]))


ESCAPED = str.maketrans({each: f"\\{each}" for each in "\\*?[]"})


@law
@given(
    make=st.sampled_from(KEY_FUNCTIONS),
    prefix=names,
    patterns=st.lists(globs, min_size=1, max_size=6),
)
def test_clear_is_told_of_and_nothing_twice(
    make: Callable[[str, str, object], str], prefix: str, patterns: list[str]
) -> None:
    found = filters("b", shape_of(lambda key, version: make(key, prefix, version)), patterns)
    assert sum(lets_through(each, "$KV.b.=clear") for each in found) == 1
    for one in found:
        assert not any(lets_through(each, one) for each in found if each != one)


@pytest.mark.parametrize("make", KEY_FUNCTIONS)
def test_a_server_takes_the_filters(
    make: Callable[[str, str, object], str], cache: NatsCache
) -> None:
    """It refuses those that overlap."""
    cache.set("key", 1)
    stream = cache._bucket.config.stream
    shape = shape_of(lambda key, version: make(key, "site:a", version))
    patterns = ["flags:*", "flags:on:*", "flag", "f*", "a?:b", "config:[ab]*", "größe:*", "x" * 900]
    for chosen in (patterns, patterns[:3], patterns[1:3] + patterns[5:7], ["*"]):
        config = {
            "name": secrets.token_hex(4),
            "deliver_subject": "nobody",
            "ack_policy": "none",
            "filter_subjects": list(filters(cache._bucket.config.name, shape, chosen)),
        }
        document = {"stream_name": stream, "config": config}
        answer = api(cache, f"CONSUMER.CREATE.{stream}.{config['name']}", document)
        assert "error" not in answer
