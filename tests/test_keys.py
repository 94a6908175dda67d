from __future__ import annotations

import fnmatch
import hashlib
import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_nats.exceptions import InvalidKey
from django_nats.keys import (
    CLEAR,
    LIMIT,
    counter_filter,
    counter_name,
    counter_parts,
    counter_subject,
    decode,
    encode,
    encode_plain,
    is_hashed,
    is_reserved,
    matcher,
    subject_filter,
)

law = settings(deadline=None, max_examples=300)

# What could be taken for a separator, a wildcard, an escape, or part of a hash.
odd_text = st.text(st.sampled_from(":::...==*>?h/-_ \x00\n\x7f\\[]23AEaefé€😀"), max_size=60)
keys = st.one_of(odd_text, st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
token_lists = st.lists(odd_text.map(lambda text: text[:12]).filter(bool), min_size=1, max_size=5)
# 66 bytes are a hash without a head.
limits = st.one_of(st.integers(8, 140), st.just(LIMIT))


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def server_matches(subject_filter: str, subject: str) -> bool:
    """Whether a server would count the subject among those of the filter."""
    wanted, tokens = subject_filter.split("."), subject.split(".")
    for place, want in enumerate(wanted):
        if want == ">":
            return place == len(wanted) - 1 and len(tokens) > place
        if place >= len(tokens) or want not in ("*", tokens[place]):
            return False
    return len(tokens) == len(wanted)


def texts(alphabet: str, longest: int) -> list[str]:
    return [
        "".join(characters)
        for length in range(longest + 1)
        for characters in itertools.product(alphabet, repeat=length)
    ]


class TestEncode:
    @pytest.mark.parametrize(
        ("key", "subject"),
        [
            (":1:user:42", "=.1.user.42"),
            ("web:1:a/b-c_D", "web.1.a/b-c_D"),
            ("a", "a"),
            ("", "="),
            (":", "=.="),
            ("::a", "=.=.a"),
            ("a::b", "a.=.b"),
            ("a:", "a.="),
            (":1:django.contrib.sessions.cachex1", "=.1.django=2Econtrib=2Esessions=2Ecachex1"),
            (".", "=2E"),
            (":.", "=.=2E"),
            ("=", "=3D"),
            ("=h", "=3Dh"),
            ("=clear", "=3Dclear"),
            ("=2E", "=3D2E"),
            ("*", "=2A"),
            (":1:>", "=.1.=3E"),
            ("a b", "a=20b"),
            ("a\n", "a=0A"),
            ("\x7f\x00", "=7F=00"),
            ("é", "=C3=A9"),
            ("😀", "=F0=9F=98=80"),
            ("$JS", "=24JS"),
        ],
    )
    def test_examples_both_ways(self, key: str, subject: str) -> None:
        assert encode(key) == subject
        assert decode(subject) == key

    @pytest.mark.parametrize(
        ("key", "limit", "head"),
        [
            ("a" * 20, 8, ""),
            ("a" * 100, 70, "aaaa"),
            # The cut falls behind a dot, within an escape (twice), and behind an empty token.
            ("abc:" + "d" * 100, 70, "abc."),
            ("abc=" + "d" * 100, 70, "abc"),
            ("ab=" + "d" * 100, 70, "ab"),
            ("a=" + "d" * 100, 70, "a=3D"),
            ("ab::" + "d" * 100, 70, "ab."),
            ("aé" + "d" * 100, 70, "a=C3"),
            # Too long only for being escaped.
            ("." * 23, 68, ""),
        ],
    )
    def test_a_key_over_the_limit_is_a_head_and_a_hash(
        self, key: str, limit: int, head: str
    ) -> None:
        subject = encode(key, limit=limit)
        assert subject == f"{head}=h{sha256(key)}"
        assert is_hashed(subject)
        assert decode(subject, limit=limit) is None

    @pytest.mark.parametrize("unit", ["a", ".", "é"])
    def test_the_limit_is_of_encoded_bytes_and_inclusive(self, unit: str) -> None:
        times, rest = divmod(LIMIT, len(encode(unit)))
        key = unit * times + "a" * rest
        assert len(encode(key)) == LIMIT
        assert decode(encode(key)) == key
        assert is_hashed(encode(key + "a"))
        assert len(encode(key + "a")) <= LIMIT

    def test_the_added_mark_of_an_empty_first_token_counts(self) -> None:
        assert encode(":a", limit=3) == "=.a"
        assert is_hashed(encode(":a", limit=2))

    @pytest.mark.parametrize("key", ["\ud800", "a:\udfff:b", "a" * 2000 + "\ud800"])
    def test_lone_surrogates_are_refused_by_name(self, key: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            encode(key)
        assert repr(key) in str(caught.value)

    def test_no_two_short_keys_are_the_same(self) -> None:
        every = texts(":.=>23DEh", 4)
        for limit in (2, 5, 67, LIMIT):
            assert len({encode(key, limit=limit) for key in every}) == len(every)

    @law
    @given(keys, keys, limits)
    def test_no_two_keys_are_the_same(self, one: str, other: str, limit: int) -> None:
        assert (encode(one, limit=limit) == encode(other, limit=limit)) == (one == other)

    @law
    @given(keys, st.integers(8, 80), limits)
    def test_no_key_passes_for_a_hashed_one(self, key: str, low: int, limit: int) -> None:
        hashed = encode(key + "a" * low + ":", limit=low)
        for forged in (hashed, hashed.replace(".", ":"), hashed.replace("=", "=3D")):
            assert encode(forged, limit=limit) != hashed
            assert not is_hashed(encode(forged))

    @law
    @given(keys)
    def test_round_trip(self, key: str) -> None:
        assert decode(encode(key)) == key

    @law
    @given(keys, limits)
    def test_round_trip_under_any_limit(self, key: str, limit: int) -> None:
        subject = encode(key, limit=limit)
        assert decode(subject, limit=limit) == (None if is_hashed(subject) else key)

    @law
    @given(keys, st.integers(1, 30), limits)
    @example("*", 1, LIMIT)
    def test_every_client_accepts_the_result(self, key: str, times: int, limit: int) -> None:
        subject = encode(key * times, limit=limit)
        assert re.fullmatch(r"[-/_=.a-zA-Z0-9]+", subject)
        assert all(subject.split("."))
        assert len(subject) <= max(limit, 66)
        assert not is_reserved(subject)


class TestEncodePlain:
    @pytest.mark.parametrize(
        "keys",
        [
            [":1:user:42"],
            [":1:a.b", "1:.", "plain", ":1:a-b/c_d"],
            [":" + "x" * (LIMIT - 1 - len("="))],
        ],
    )
    def test_many_at_once_are_what_each_is_alone(self, keys: list[str]) -> None:
        assert encode_plain(keys) == [encode(key) for key in keys]

    @pytest.mark.parametrize(
        "odd",
        ["", "a\nb", "a\n:b", "\n", "a b", "é", "a::b", "a:", "=", "x" * (LIMIT + 1), "\ud800"],
    )
    @pytest.mark.parametrize("others", [[], [":1:plain"]])
    def test_one_that_needs_more_than_a_glance(self, odd: str, others: list[str]) -> None:
        assert encode_plain([*others, odd, *others]) is None

    def test_none(self) -> None:
        assert not encode_plain([])

    @given(
        st.lists(st.one_of(keys, st.from_regex(r":?[a.]+(:[b/]+)*", fullmatch=True)), max_size=5)
    )
    @law
    def test_it_never_differs(self, some: list[str]) -> None:
        assert encode_plain(some) in (None, [encode(key) for key in some])


class TestDecode:
    @pytest.mark.parametrize(
        "subject",
        [
            "",
            ".",
            ".a",
            "a.",
            "a..b",
            "=3d",  # lower-case
            "=41",  # needs no escape
            "=3A",  # a separator, escaped
            "=2",
            "a=",
            "==",
            "=a",
            "a:b",
            "a*",
            "a.>",
            "a b",
            "a\n",
            "é",
            "€",
            "\ud800",
            "=C3",
            "=ED=A0=80",  # a surrogate
            "=C0=AE",  # a dot, overlong
            "=clear",
            "=lock",
            "=h",
            "=h" + "0" * 63,
            "=h" + "0" * 65,
            "=h" + "A" * 64,
            "=h" + "0" * 64 + "\n",
            "=h" + "0" * 64 + ".a",
        ],
    )
    def test_what_encode_returns_for_no_key_is_refused_by_name(self, subject: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            decode(subject)
        assert repr(subject) in str(caught.value)

    def test_a_key_that_should_have_been_hashed_is_refused(self) -> None:
        for key in ("a" * 41, "é" * 7):
            with pytest.raises(InvalidKey):
                decode(encode(key), limit=40)

    def test_a_hashed_key_over_the_limit_is_refused(self) -> None:
        subject = "a" * 5 + "=h" + "0" * 64
        assert decode(subject, limit=71) is None
        with pytest.raises(InvalidKey):
            decode(subject, limit=70)

    @pytest.mark.parametrize("head", ["a=", "a=4", "=41", "a..", ".", "a.=", "=3A", "=FF", "a:"])
    def test_a_hash_after_an_impossible_head_is_refused(self, head: str) -> None:
        with pytest.raises(InvalidKey):
            decode(head + "=h" + "0" * 64)

    def test_of_all_short_texts_it_takes_only_what_encode_returns(self) -> None:
        encoded = {encode(key): key for key in texts(":.=*A2Eah", 4)}
        for text in texts(":.=*A2Eah", 4):
            try:
                key = decode(text)
            except InvalidKey:
                assert text not in encoded
            else:
                assert key is not None
                assert encode(key) == text


class TestNames:
    def test_the_name_of_a_clear_is_reserved(self) -> None:
        assert CLEAR == "=clear"
        assert is_reserved(CLEAR)
        assert is_reserved("=lock.a")
        assert is_reserved("=h")

    @pytest.mark.parametrize("subject", ["=", "=.a", "=3D", "a", "a.=clear", "=h" + "0" * 64])
    def test_what_could_be_a_keys_is_not_reserved(self, subject: str) -> None:
        assert not is_reserved(subject)

    @pytest.mark.parametrize("head", ["", "a", "a.", "=.=3D"])
    def test_a_hash_is_told_by_its_form(self, head: str) -> None:
        digest = sha256("a")
        assert is_hashed(f"{head}=h{digest}")
        for other in (f"=h{digest}0", f"=h{digest[1:]}", f"=h{digest}\n", f"=3Dh{digest}", digest):
            assert not is_hashed(head + other)


@st.composite
def patterns_and_keys(draw: st.DrawFn) -> tuple[str, str]:
    """A glob, and a key that it matches."""
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
    def test_globs(self, pattern: str, matching: list[str], others: list[str]) -> None:
        match = matcher(pattern)
        assert [key for key in matching if not match(key)] == []
        assert [key for key in others if match(key)] == []

    @law
    @given(st.text("ab:*?", max_size=8), st.text("ab:\n", max_size=8))
    def test_globs_without_brackets_are_fnmatch(self, pattern: str, key: str) -> None:
        assert matcher(pattern)(key) == fnmatch.fnmatchcase(key, pattern)

    @pytest.mark.timeout(20)
    def test_many_stars_take_no_time_to_speak_of(self) -> None:
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
    def test_filters(self, pattern: str, subject: str) -> None:
        assert subject_filter(pattern) == subject

    def test_the_filter_of_one_hashed_key_is_that_key(self) -> None:
        assert subject_filter("a:" * 1000) == encode("a:" * 1000)

    def test_a_filter_keeps_what_a_head_keeps_and_no_more(self) -> None:
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

    @settings(law, max_examples=1500)
    @given(patterns_and_keys(), limits)
    @example(("a:*:b:c", "a::b:c"), LIMIT)
    @example(("*:b:*", "a" * 2000 + ":b:"), LIMIT)
    @example(("a:" * 478 + "é:*", "a:" * 478 + "é:" + "b" * 100), LIMIT)
    @example(("a:" * 479 + "*", "a:" * 600), LIMIT)
    @example(("a:" * 480 + "*", "a:" * 600), LIMIT)
    @example((":" * 480 + "*", ":" * 1000), LIMIT)
    def test_a_filter_excludes_nothing_that_matches(
        self, pattern_and_key: tuple[str, str], limit: int
    ) -> None:
        pattern, key = pattern_and_key
        assert matcher(pattern)(key)
        subjects = subject_filter(pattern, limit=limit)
        assert server_matches(subjects, encode(key, limit=limit))
        assert re.fullmatch(r"([-/_=a-zA-Z0-9]+\.)*([-/_=a-zA-Z0-9]+|>)", subjects)


class TestCounters:
    @pytest.mark.parametrize(
        ("parts", "subject"),
        [
            (("clicks",), "clicks"),
            (("clicks.eu.home",), "clicks.eu.home"),
            (("clicks", "eu", "/index.html"), "clicks.eu./index=2Ehtml"),
            (("a:b.c",), "a=3Ab.c"),
            (("a:b", "c"), "a=3Ab.c"),
            (("*.>",), "=2A.=3E"),
            (("*", ">"), "=2A.=3E"),
            (("=.é",), "=3D.=C3=A9"),
            (("$JS.API",), "=24JS.API"),
        ],
    )
    def test_subjects(self, parts: tuple[str, ...], subject: str) -> None:
        assert counter_subject(*parts) == subject

    @pytest.mark.parametrize(
        "parts", [(), ("",), (".",), ("a.",), (".a",), ("a..b",), ("a", ""), ("", "a"), ("", "")]
    )
    def test_empty_names_and_tokens_are_refused_by_name(self, parts: tuple[str, ...]) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_subject(*parts)
        assert repr(parts[0] if len(parts) == 1 else parts) in str(caught.value)

    def test_names_over_the_limit_and_lone_surrogates_are_refused_by_name(self) -> None:
        assert len(counter_subject("a" * LIMIT)) == LIMIT
        for name in ("a" * (LIMIT + 1), "é" * 171, "a.\ud800"):
            with pytest.raises(InvalidKey) as caught:
                counter_subject(name)
            assert repr(name.split(".")[-1]) in str(caught.value)
        with pytest.raises(ValueError, match="1025 bytes"):
            counter_subject("a" * 512, "a" * 512)

    @law
    @given(token_lists, token_lists)
    def test_no_two_lists_of_parts_are_the_same(self, one: list[str], other: list[str]) -> None:
        assert (counter_subject("a", *one) == counter_subject("a", *other)) == (one == other)

    @law
    @given(token_lists)
    def test_names_round_trip(self, tokens: list[str]) -> None:
        name = ".".join(token.replace(".", "-") for token in tokens)
        subject = counter_subject(name)
        assert re.fullmatch(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*", subject)
        assert counter_name(subject) == name

    @law
    @given(token_lists)
    def test_parts_round_trip_dots_and_all(self, tokens: list[str]) -> None:
        parts = (*tokens, "v1.5")
        assert counter_parts(counter_subject(*parts)) == parts

    @pytest.mark.parametrize(
        "subject", ["", "a", ".", "a.", "a..b", "a.b:", "a.*", "a.=41", "a.=", "a.=C3", "a.€"]
    )
    def test_what_is_no_parts_subject_is_refused_by_name(self, subject: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_parts(subject)
        assert repr(subject) in str(caught.value)

    @pytest.mark.parametrize(
        "subject",
        ["", ".", "a.", "a..b", "a:b", "a*", ">", "a.=2Eb", "=41", "=3d", "=", "=C3", "é", "€"],
    )
    def test_what_is_no_names_subject_is_refused_by_name(self, subject: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_name(subject)
        assert repr(subject) in str(caught.value)

    @pytest.mark.parametrize(
        ("pattern", "subject"),
        [
            ("clicks.eu", "clicks.eu"),
            ("clicks.*.home", "clicks.*.home"),
            ("clicks.>", "clicks.>"),
            ("*.*.>", "*.*.>"),
            ("*", "*"),
            (">", ">"),
            ("a*.>b", "a=2A.=3Eb"),
            ("a:b.*", "a=3Ab.*"),
        ],
    )
    def test_filters(self, pattern: str, subject: str) -> None:
        assert counter_filter(pattern) == subject

    @pytest.mark.parametrize("pattern", ["", ".", "a..*", ".>", "*.", "a" * 1025, "a.>.b", ">.>"])
    def test_filters_the_server_would_refuse_are_refused_by_name(self, pattern: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_filter(pattern)
        assert repr(pattern) in str(caught.value)
