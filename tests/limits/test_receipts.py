"""The ids of uses: what they hold, and which texts are refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.signing import Signer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_nats.limits.keys import MAX_READABLE_BYTES
from django_nats.limits.quota import _MAX_NAME_BYTES, MOST
from django_nats.limits.receipts import Receipt, new_receipt, read_receipt

WHERE = "Quota('exports')"
tokens = st.from_regex(r"[-/_a-zA-Z0-9=]{1,20}", fullmatch=True)


def receipt() -> Receipt:
    return new_receipt("exports", "acme", "2026-11", 3, 17)


def changed(id: str) -> list[str]:
    """Return an id with each of its characters replaced."""
    return [id[:at] + ("x" if id[at] != "x" else "y") + id[at + 1 :] for at in range(len(id))] + [
        id[:-1],
        id[1:],
        id + "x",
        id + "\n",
        f" {id}",
    ]


@given(tokens, tokens, tokens, st.integers(1, MOST), st.integers(1, 2**63))
def test_an_id_holds_the_whole_receipt(
    quota: str, key: str, period: str, n: int, sequence: int
) -> None:
    made = new_receipt(quota, key, period, n, sequence)
    assert read_receipt(made.id(), quota, WHERE) == made


def test_two_receipts_of_equal_uses_differ() -> None:
    assert receipt().id() != receipt().id()


def test_an_id_fits_into_a_column_of_a_documented_length() -> None:
    name, period = "x" * _MAX_NAME_BYTES, "2026-10-25T003000Z"
    hashed = new_receipt(name, "x" * 20, period, MOST, 2**63)
    readable = new_receipt(name, "x" * MAX_READABLE_BYTES, period, MOST, 2**63)
    assert len(hashed.id()) <= 200
    assert len(readable.id()) <= 310


def test_an_id_that_was_changed_is_refused() -> None:
    for text in changed(receipt().id()):
        with pytest.raises(ValueError, match="is not the id of a use"):
            read_receipt(text, "exports", WHERE)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "nonsense",
        ":",
        "exports.acme.2026-11.3.17.nonce",
        "exports.acme.2026-11.3.17.nonce:",
        "\ud800",
        "x:\ud800",
        "\ud800:x",
        "\0",
        "é" * 10_000,
        Signer().sign("exports.acme.2026-11.3.17.nonce"),
    ],
)
def test_a_text_that_no_quota_has_given_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Quota\('exports'\): this is not the id of a use"):
        read_receipt(text, "exports", WHERE)


def test_the_error_does_not_repeat_the_id_which_may_name_a_tenant() -> None:
    with pytest.raises(ValueError, match="is not the id") as caught:
        read_receipt("ann@example.com", "exports", WHERE)
    assert "ann" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_id_of_another_quotas_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Quota\('imports'\): .* of another quota, exports"):
        read_receipt(receipt().id(), "imports", "Quota('imports')")


@pytest.mark.parametrize("value", [None, 1, b"exports", receipt()])
def test_an_id_that_is_not_a_string_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"Quota\('exports'\): the id of a use is a string"):
        read_receipt(value, "exports", WHERE)


def test_the_empty_id_of_a_refused_use_is_refused() -> None:
    with pytest.raises(ValueError, match="the id is empty"):
        read_receipt("", "exports", WHERE)


def test_an_id_stays_valid_after_a_change_of_the_secret_key_with_a_fallback() -> None:
    with override_settings(SECRET_KEY="earlier"):
        made = receipt()
        id = made.id()
    with override_settings(SECRET_KEY="later", SECRET_KEY_FALLBACKS=["earlier"]):
        assert read_receipt(id, "exports", WHERE) == made
    with (
        override_settings(SECRET_KEY="later"),
        pytest.raises(ValueError, match="SECRET_KEY_FALLBACKS"),
    ):
        read_receipt(id, "exports", WHERE)
