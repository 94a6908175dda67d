from __future__ import annotations

import hashlib
import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_nats.exceptions import InvalidKey
from django_nats.keys import (
    CLEAR,
    MAX_SUBJECT_BYTES,
    counter_filter,
    counter_name,
    counter_parts,
    counter_subject,
    decode,
    encode,
    is_hashed,
    is_reserved,
)

law = settings(deadline=None, max_examples=300)

# Characters that resemble a separator, a wildcard, an escape or part of a hash.
odd_text = st.text(st.sampled_from(":::...==*>?h/-_ \x00\n\x7f\\[]23AEaefé€😀"), max_size=60)
keys = st.one_of(odd_text, st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
token_lists = st.lists(odd_text.map(lambda text: text[:12]).filter(bool), min_size=1, max_size=5)
# A hash without a head takes 66 bytes.
limits = st.one_of(st.integers(8, 140), st.just(MAX_SUBJECT_BYTES))


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def server_matches(subject_filter: str, subject: str) -> bool:
    """Return True if a server would match the subject with the filter."""
    wanted, tokens = subject_filter.split("."), subject.split(".")
    for position, want in enumerate(wanted):
        if want == ">":
            return position == len(wanted) - 1 and len(tokens) > position
        if position >= len(tokens) or want not in ("*", tokens[position]):
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
    def test_keys_encode_and_decode(self, key: str, subject: str) -> None:
        assert encode(key) == subject
        assert decode(subject) == key

    @pytest.mark.parametrize(
        ("key", "limit", "head"),
        [
            ("a" * 20, 8, ""),
            ("a" * 100, 70, "aaaa"),
            # The cut falls after a dot, within an escape (twice), and after an empty token.
            ("abc:" + "d" * 100, 70, "abc."),
            ("abc=" + "d" * 100, 70, "abc"),
            ("ab=" + "d" * 100, 70, "ab"),
            ("a=" + "d" * 100, 70, "a=3D"),
            ("ab::" + "d" * 100, 70, "ab."),
            ("aé" + "d" * 100, 70, "a=C3"),
            # Too long only because of its escapes.
            ("." * 23, 68, ""),
        ],
    )
    def test_a_key_over_the_limit_becomes_a_head_and_a_hash(
        self, key: str, limit: int, head: str
    ) -> None:
        subject = encode(key, limit=limit)
        assert subject == f"{head}=h{sha256(key)}"
        assert is_hashed(subject)
        assert decode(subject, limit=limit) is None

    @pytest.mark.parametrize("unit", ["a", ".", "é"])
    def test_the_limit_counts_encoded_bytes_and_is_inclusive(self, unit: str) -> None:
        times, rest = divmod(MAX_SUBJECT_BYTES, len(encode(unit)))
        key = unit * times + "a" * rest
        assert len(encode(key)) == MAX_SUBJECT_BYTES
        assert decode(encode(key)) == key
        assert is_hashed(encode(key + "a"))
        assert len(encode(key + "a")) <= MAX_SUBJECT_BYTES

    def test_the_mark_of_an_empty_first_token_counts_towards_the_limit(self) -> None:
        assert encode(":a", limit=3) == "=.a"
        assert is_hashed(encode(":a", limit=2))

    @pytest.mark.parametrize("key", ["\ud800", "a:\udfff:b", "a" * 2000 + "\ud800"])
    def test_lone_surrogates_are_refused_by_name(self, key: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            encode(key)
        assert repr(key) in str(caught.value)

    def test_no_two_short_keys_have_the_same_subject(self) -> None:
        every = texts(":.=>23DEh", 4)
        for limit in (2, 5, 67, MAX_SUBJECT_BYTES):
            assert len({encode(key, limit=limit) for key in every}) == len(every)

    @law
    @given(keys, keys, limits)
    def test_no_two_keys_have_the_same_subject(self, one: str, other: str, limit: int) -> None:
        assert (encode(one, limit=limit) == encode(other, limit=limit)) == (one == other)

    @law
    @given(keys, st.integers(8, 80), limits)
    def test_no_key_encodes_to_the_subject_of_a_hashed_key(
        self, key: str, low: int, limit: int
    ) -> None:
        hashed = encode(key + "a" * low + ":", limit=low)
        for forged in (hashed, hashed.replace(".", ":"), hashed.replace("=", "=3D")):
            assert encode(forged, limit=limit) != hashed
            assert not is_hashed(encode(forged))

    @law
    @given(keys)
    def test_keys_round_trip(self, key: str) -> None:
        assert decode(encode(key)) == key

    @law
    @given(keys, limits)
    def test_keys_round_trip_under_any_limit(self, key: str, limit: int) -> None:
        subject = encode(key, limit=limit)
        assert decode(subject, limit=limit) == (None if is_hashed(subject) else key)

    @law
    @given(keys, st.integers(1, 30), limits)
    @example("*", 1, MAX_SUBJECT_BYTES)
    def test_every_subject_is_valid_for_all_clients(self, key: str, times: int, limit: int) -> None:
        subject = encode(key * times, limit=limit)
        assert re.fullmatch(r"[-/_=.a-zA-Z0-9]+", subject)
        assert all(subject.split("."))
        assert len(subject) <= max(limit, 66)
        assert not is_reserved(subject)


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
    def test_a_subject_that_encode_never_returns_is_refused_by_name(self, subject: str) -> None:
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

    def test_only_subjects_that_encode_returns_are_decoded(self) -> None:
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
    def test_the_subject_of_a_clear_is_reserved(self) -> None:
        assert CLEAR == "=clear"
        assert is_reserved(CLEAR)
        assert is_reserved("=lock.a")
        assert is_reserved("=h")

    @pytest.mark.parametrize("subject", ["=", "=.a", "=3D", "a", "a.=clear", "=h" + "0" * 64])
    def test_subjects_of_keys_are_not_reserved(self, subject: str) -> None:
        assert not is_reserved(subject)

    @pytest.mark.parametrize("head", ["", "a", "a.", "=.=3D"])
    def test_a_hash_is_recognised_by_its_form(self, head: str) -> None:
        digest = sha256("a")
        assert is_hashed(f"{head}=h{digest}")
        for other in (f"=h{digest}0", f"=h{digest[1:]}", f"=h{digest}\n", f"=3Dh{digest}", digest):
            assert not is_hashed(head + other)


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
    def test_counter_names_become_subjects(self, parts: tuple[str, ...], subject: str) -> None:
        assert counter_subject(*parts) == subject

    @pytest.mark.parametrize(
        "parts", [(), ("",), (".",), ("a.",), (".a",), ("a..b",), ("a", ""), ("", "a"), ("", "")]
    )
    def test_empty_names_and_tokens_are_refused_by_name(self, parts: tuple[str, ...]) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_subject(*parts)
        assert repr(parts[0] if len(parts) == 1 else parts) in str(caught.value)

    def test_names_over_the_limit_and_lone_surrogates_are_refused_by_name(self) -> None:
        assert len(counter_subject("a" * MAX_SUBJECT_BYTES)) == MAX_SUBJECT_BYTES
        for name in ("a" * (MAX_SUBJECT_BYTES + 1), "é" * 171, "a.\ud800"):
            with pytest.raises(InvalidKey) as caught:
                counter_subject(name)
            assert repr(name.split(".")[-1]) in str(caught.value)
        with pytest.raises(ValueError, match="1025 bytes"):
            counter_subject("a" * 512, "a" * 512)

    @law
    @given(token_lists, token_lists)
    def test_no_two_lists_of_parts_have_the_same_subject(
        self, one: list[str], other: list[str]
    ) -> None:
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
    def test_parts_with_dots_round_trip(self, tokens: list[str]) -> None:
        parts = (*tokens, "v1.5")
        assert counter_parts(counter_subject(*parts)) == parts

    @pytest.mark.parametrize(
        "subject", ["", "a", ".", "a.", "a..b", "a.b:", "a.*", "a.=41", "a.=", "a.=C3", "a.€"]
    )
    def test_an_invalid_subject_of_parts_is_refused_by_name(self, subject: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_parts(subject)
        assert repr(subject) in str(caught.value)

    @pytest.mark.parametrize(
        "subject",
        ["", ".", "a.", "a..b", "a:b", "a*", ">", "a.=2Eb", "=41", "=3d", "=", "=C3", "é", "€"],
    )
    def test_an_invalid_subject_of_a_name_is_refused_by_name(self, subject: str) -> None:
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
    def test_counter_patterns_become_filters(self, pattern: str, subject: str) -> None:
        assert counter_filter(pattern) == subject

    @pytest.mark.parametrize("pattern", ["", ".", "a..*", ".>", "*.", "a" * 1025, "a.>.b", ">.>"])
    def test_invalid_filters_are_refused_by_name(self, pattern: str) -> None:
        with pytest.raises(InvalidKey) as caught:
            counter_filter(pattern)
        assert repr(pattern) in str(caught.value)
