"""Glob patterns, and the subject filters made from them."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_nats.exceptions import InvalidKey
from django_nats.keys import (
    MAX_SUBJECT_BYTES,
    encode,
    matcher,
    subject_filter,
)
from tests.test_keys import law, limits, odd_text, server_matches


@st.composite
def patterns_and_keys(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a glob pattern and a key that it matches."""
    pattern, key = "", ""
    for kind in draw(st.lists(st.sampled_from("llllll*?[^!"), max_size=30)):
        one = draw(st.sampled_from("ab::::.=*]^-\\é\n"))
        other = draw(st.sampled_from("xyz"))
        if kind == "l":
            pattern += re.sub(r"[*?\[\\]", r"\\\g<0>", one)
            key += one
        elif kind == "*":
            pattern += "*"
            key += draw(st.one_of(odd_text, st.sampled_from(["", ":", "a" * 200, "a:" * 100])))
        elif kind == "?":
            pattern += "?"
            key += one
        elif kind == "[":
            pattern += f"[\\{one}x-z]"
            key += draw(st.sampled_from([one, other]))
        else:
            pattern += f"[{kind}x-z]"
            key += one
    return pattern, key


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "matching", "others"),
        [
            ("", [""], ["a"]),
            ("a", ["a"], ["", "A", "aa", "a\n"]),
            ("a.c", ["a.c"], ["abc"]),
            ("*", ["", "a", "a:b\nc"], []),
            (":1:user:*", [":1:user:", ":1:user:42", ":1:user:42:x"], [":1:user", ":1:users:4"]),
            ("*:session:?", ["a:session:b", ":session::", "a:b:session:c"], ["session:b"]),
            ("a**b", ["ab", "axb"], ["a", "b"]),
            ("*ab*ab", ["abab", "xabxabxab"], ["ab", "aba", "ababa"]),
            ("?", ["a", ":", "\n", "é", "😀"], ["", "ab"]),
            ("[ab]", ["a", "b"], ["c", "", "ab"]),
            ("[a-c]", ["a", "b", "c"], ["d", "-"]),
            ("[c-a]", ["b"], ["d", "-"]),
            ("[^a]", ["b", ":", "^", "\n"], ["a", ""]),
            ("[!a]", ["b", ":", "!", "\n"], ["a", ""]),
            ("[a^!]", ["a", "^", "!"], ["b"]),
            ("[a\\-c]", ["a", "-", "c"], ["b", "\\"]),
            ("[\\]]", ["]"], ["\\", "\\]"]),
            ("[\\^a]", ["^", "a"], ["b", "\\"]),
            ("[a-]", ["]", "^", "a"], ["-"]),
            ("[ab", ["a", "b"], ["[ab", "c"]),
            ("[a\\", ["a", "\\"], ["b"]),
            ("[]a]", [], ["a", "]", "a]", "[]a]"]),
            ("[^]a", ["xa", "]a"], ["a", "xb"]),
            ("[--a]", ["-", "A", "a"], ["b"]),
            ("[[&&]", ["[", "&"], ["]"]),
            ("\\*", ["*"], ["a", "\\*", "\\"]),
            ("\\a", ["a"], ["\\a"]),
            ("a\\", ["a\\"], ["a"]),
            ("\\\\", ["\\"], ["\\\\"]),
            ("a\nb", ["a\nb"], ["a"]),
            ("\\\n", ["\n"], ["\\\n"]),
            ("[\\\n]", ["\n"], ["\\"]),
            ("[\n-b]", ["\n", "a"], ["c"]),
            ("(a|b)+", ["(a|b)+"], ["a"]),
        ],
    )
    def test_a_glob_matches_its_keys_only(
        self, pattern: str, matching: list[str], others: list[str]
    ) -> None:
        match = matcher(pattern)
        assert [key for key in matching if not match(key)] == []
        assert [key for key in others if match(key)] == []

    @law
    @given(st.text("ab:*?", max_size=8), st.text("ab:\n", max_size=8))
    def test_globs_without_brackets_match_like_fnmatch(self, pattern: str, key: str) -> None:
        assert bool(matcher(pattern)(key)) is fnmatch.fnmatchcase(key, pattern)

    def test_many_stars_match_quickly(self) -> None:
        assert not matcher("*a" * 20 + "b")("a" * 200)
        assert matcher("*a" * 20 + "*b")("a" * 200 + "b")

    @pytest.mark.parametrize(
        ("pattern", "subject"),
        [
            ("*", ">"),
            ("?", ">"),
            ("*:session:?", ">"),
            (":*", "=.>"),
            (":1:*", "=.1.>"),
            (":1:user*", "=.1.>"),
            (":1:user:*", "=.1.user.>"),
            (":1:user:*:name", "=.1.user.>"),
            (":1:user::*", "=.1.user.=.>"),
            (":1:a.b:[ab]", "=.1.a=2Eb.>"),
            (":1:\\*:?", "=.1.=2A.>"),
            # No wildcard: one key.
            ("", "="),
            (":1:user:42", "=.1.user.42"),
            (":1:\\*", "=.1.=2A"),
            ("a:>", "a.=3E"),
        ],
    )
    def test_a_pattern_becomes_a_subject_filter(self, pattern: str, subject: str) -> None:
        assert subject_filter(pattern) == subject

    def test_the_filter_of_a_hashed_key_is_its_subject(self) -> None:
        assert subject_filter("a:" * 1000) == encode("a:" * 1000)

    def test_a_filter_is_cut_where_the_head_of_a_hashed_key_is(self) -> None:
        start = "ab:=:"
        assert subject_filter(start + "*", limit=66 + 7) == "ab.=3D.>"
        assert subject_filter(start + "*", limit=66 + 6) == "ab.>"
        assert subject_filter(start + "*", limit=66 + 3) == "ab.>"
        assert subject_filter(start + "*", limit=66 + 2) == ">"
        assert subject_filter(start + "*", limit=8) == ">"

    def test_lone_surrogates_are_refused_by_name(self) -> None:
        for pattern in ("a\ud800:*", "a\ud800"):
            with pytest.raises(InvalidKey, match=r"'a\\ud800'"):
                subject_filter(pattern)

    @pytest.mark.once
    @settings(law, max_examples=1500)
    @given(patterns_and_keys(), limits)
    @example(("a:*:b:c", "a::b:c"), MAX_SUBJECT_BYTES)
    @example(("*:b:*", "a" * 2000 + ":b:"), MAX_SUBJECT_BYTES)
    @example(("a:" * 478 + "é:*", "a:" * 478 + "é:" + "b" * 100), MAX_SUBJECT_BYTES)
    @example(("a:" * 479 + "*", "a:" * 600), MAX_SUBJECT_BYTES)
    @example(("a:" * 480 + "*", "a:" * 600), MAX_SUBJECT_BYTES)
    @example((":" * 480 + "*", ":" * 1000), MAX_SUBJECT_BYTES)
    def test_a_filter_includes_every_matching_key(
        self, pattern_and_key: tuple[str, str], limit: int
    ) -> None:
        pattern, key = pattern_and_key
        assert matcher(pattern)(key)
        subjects = subject_filter(pattern, limit=limit)
        assert server_matches(subjects, encode(key, limit=limit))
        assert re.fullmatch(r"([-/_=a-zA-Z0-9]+\.)*([-/_=a-zA-Z0-9]+|>)", subjects)
