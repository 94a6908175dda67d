"""Many plain keys, encoded and decoded together."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.exceptions import InvalidKey
from django_nats.keys import MAX_SUBJECT_BYTES, decode, decode_plain, encode, encode_plain
from tests.test_keys import keys, law


class TestEncodePlain:
    @pytest.mark.parametrize(
        "keys",
        [
            [":1:user:42"],
            [":1:a.b", "1:.", "plain", ":1:a-b/c_d"],
            [":" + "x" * (MAX_SUBJECT_BYTES - 1 - len("="))],
        ],
    )
    def test_plain_keys_are_encoded_as_by_encode(self, keys: list[str]) -> None:
        assert encode_plain(keys) == [encode(key) for key in keys]

    @pytest.mark.parametrize(
        "odd",
        [
            "",
            "a\nb",
            "a\n:b",
            "\n",
            "a b",
            "é",
            "a::b",
            "a:",
            "=",
            "x" * (MAX_SUBJECT_BYTES + 1),
            "\ud800",
        ],
    )
    @pytest.mark.parametrize("others", [[], [":1:plain"]])
    def test_one_key_that_is_not_plain_gives_none(self, odd: str, others: list[str]) -> None:
        assert encode_plain([*others, odd, *others]) is None
        assert encode_plain([odd, *others]) is None

    def test_no_keys_give_an_empty_result(self) -> None:
        assert not encode_plain([])

    @given(
        st.lists(st.one_of(keys, st.from_regex(r":?[a.]+(:[b/]+)*", fullmatch=True)), max_size=5)
    )
    @pytest.mark.once
    @law
    def test_the_result_never_differs_from_encode(self, some: list[str]) -> None:
        assert encode_plain(some) in (None, [encode(key) for key in some])


def decoded(subject_key: str) -> str | None:
    with suppress(InvalidKey):
        return decode(subject_key)
    return None


class TestDecodePlain:
    @pytest.mark.parametrize(
        "subject_keys",
        [
            ["=.1.user.42"],
            ["=.1.a=2Eb", "1.=2E", "plain", "=.1.a-b/c_d"],
            ["=2E" * 341],
        ],
    )
    def test_kv_keys_of_plain_keys_are_decoded_as_by_decode(self, subject_keys: list[str]) -> None:
        assert decode_plain("\n".join(subject_keys)) == [decode(each) for each in subject_keys]

    @pytest.mark.parametrize(
        "odd",
        [
            "",
            "=",
            ".",
            "a.",
            ".a",
            "a..b",
            "a.=.b",
            "a b",
            "a:b",
            "a=20b",
            "a=2eb",
            "=clear",
            "=a",
            "a=",
            "é",
            "a=h" + "0" * 64,
            "x" * 342,
        ],
    )
    @pytest.mark.parametrize("others", [[], ["=.1.plain"]])
    def test_one_kv_key_that_is_not_of_a_plain_key_gives_none(
        self, odd: str, others: list[str]
    ) -> None:
        assert decode_plain("\n".join([*others, odd, *others])) is None

    @given(
        st.lists(
            st.text("=.2EH:a", max_size=8)
            | st.from_regex(r"(=\.)?[ab]+(=2E|\.[ab])*", fullmatch=True)
            | keys.map(encode),
            min_size=1,
            max_size=5,
        )
    )
    @pytest.mark.once
    @law
    def test_the_result_never_differs_from_decode(self, some: list[str]) -> None:
        assert decode_plain("\n".join(some)) in (None, [decoded(each) for each in some])
