from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.crypto import salted_hmac
from hypothesis import given
from hypothesis import strategies as st

from django_nats.exceptions import Unreadable
from django_nats.serializers import (
    JSONSerializer,
    MsgPackSerializer,
    PickleSerializer,
    Serializer,
    SignedPickleSerializer,
)

pytestmark = pytest.mark.smoke

BUCKET = "web_cache"
KEY = ":1:user:42"

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text
json_values = st.recursive(
    scalars | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
msgpack_integers = st.integers(-(2**63), 2**64 - 1)
msgpack_values = st.recursive(
    scalars | msgpack_integers | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(text | msgpack_integers, inner, max_size=4)
    ),
    max_leaves=20,
)
picklable_values = st.recursive(
    scalars | st.integers() | st.binary(max_size=20) | st.decimals(allow_nan=False) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | text, inner, max_size=4)
    ),
    max_leaves=20,
)


class Mark:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@given(picklable_values)
def test_pickle_round_trips(value: object) -> None:
    serializer = PickleSerializer()
    assert (
        serializer.loads(serializer.dumps(value, bucket=BUCKET, key=KEY), bucket=BUCKET, key=KEY)
        == value
    )


@given(picklable_values, text)
def test_signed_pickle_round_trips(value: object, key: str) -> None:
    serializer = SignedPickleSerializer()
    assert (
        serializer.loads(serializer.dumps(value, bucket=BUCKET, key=key), bucket=BUCKET, key=key)
        == value
    )


@given(json_values)
def test_json_round_trips(value: object) -> None:
    serializer = JSONSerializer()
    assert (
        serializer.loads(serializer.dumps(value, bucket=BUCKET, key=KEY), bucket=BUCKET, key=KEY)
        == value
    )


@given(msgpack_values)
def test_msgpack_round_trips(value: object) -> None:
    serializer = MsgPackSerializer()
    assert (
        serializer.loads(serializer.dumps(value, bucket=BUCKET, key=KEY), bucket=BUCKET, key=KEY)
        == value
    )


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (PickleSerializer, "pickle"),
        (SignedPickleSerializer, "signed-pickle"),
        (JSONSerializer, "json"),
        (MsgPackSerializer, "msgpack"),
    ],
)
def test_the_name_is_the_one_stored_with_values(made: type[Serializer], name: str) -> None:
    serializer = made()
    assert isinstance(serializer, Serializer)
    assert serializer.name == name


@pytest.mark.parametrize(
    ("protocol", "written"),
    [(None, pickle.HIGHEST_PROTOCOL), (-1, pickle.HIGHEST_PROTOCOL), (2, 2), (4, 4)],
)
@pytest.mark.parametrize("made", [PickleSerializer, SignedPickleSerializer])
def test_the_given_pickle_protocol_is_used(
    made: type[PickleSerializer], protocol: int | None, written: int
) -> None:
    data = made(protocol).dumps("value", bucket=BUCKET, key=KEY)
    assert data.endswith(pickle.dumps("value", written))


@pytest.mark.parametrize("protocol", [-2, pickle.HIGHEST_PROTOCOL + 1, True, "2", 2.0])
def test_an_invalid_pickle_protocol_is_refused(protocol: int) -> None:
    with pytest.raises(ValueError, match="pickle protocol"):
        PickleSerializer(protocol)


def test_json_is_compact_utf8() -> None:
    value = {"ключ": [1, 2], "price": Decimal("1.50")}
    data = JSONSerializer().dumps(value, bucket=BUCKET, key=KEY)
    assert data == '{"ключ":[1,2],"price":"1.50"}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_values_that_other_readers_cannot_parse(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        JSONSerializer().dumps(value, bucket=BUCKET, key=KEY)


def test_json_reads_utf8_only() -> None:
    with pytest.raises(ValueError, match="codec"):
        JSONSerializer().loads(json.dumps("value").encode("utf-16"), bucket=BUCKET, key=KEY)


def test_signed_pickle_is_the_digest_and_the_pickle() -> None:
    data = SignedPickleSerializer().dumps(["value"], bucket=BUCKET, key=KEY)
    assert len(data) == 32 + len(pickle.dumps(["value"], pickle.HIGHEST_PROTOCOL))
    assert pickle.loads(data[32:]) == ["value"]


def test_every_altered_byte_is_detected() -> None:
    serializer = SignedPickleSerializer()
    data = serializer.dumps({"admin": False}, bucket=BUCKET, key=KEY)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(Unreadable, match="signature"):
            serializer.loads(bytes(altered), bucket=BUCKET, key=KEY)


def test_every_truncation_and_addition_is_detected() -> None:
    serializer = SignedPickleSerializer()
    data = serializer.dumps({"admin": False}, bucket=BUCKET, key=KEY)
    for wrong in (*(data[:length] for length in range(len(data))), data + b"."):
        with pytest.raises(Unreadable, match="signature"):
            serializer.loads(wrong, bucket=BUCKET, key=KEY)


def test_a_value_cannot_be_replayed_under_another_key() -> None:
    serializer = SignedPickleSerializer()
    data = serializer.dumps({"admin": True}, bucket=BUCKET, key=":1:session:mallory")
    with pytest.raises(Unreadable, match="another key"):
        serializer.loads(data, bucket=BUCKET, key=":1:session:alice")


def test_a_value_cannot_be_replayed_in_another_bucket() -> None:
    serializer = SignedPickleSerializer()
    data = serializer.dumps({"admin": True}, bucket="drafts", key=KEY)
    with pytest.raises(Unreadable, match="bucket"):
        serializer.loads(data, bucket=BUCKET, key=KEY)


def test_bytes_cannot_move_between_bucket_key_and_pickle() -> None:
    serializer = SignedPickleSerializer()
    data = serializer.dumps("value", bucket="ab", key="cd")
    signature, pickled = data[:32], data[32:]
    for bucket, key, rest in (("ab", "c", b"d" + pickled), ("a", "bcd", pickled)):
        with pytest.raises(Unreadable):
            serializer.loads(signature + rest, bucket=bucket, key=key)


def test_nothing_is_unpickled_before_the_signature_is_verified(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    serializer = SignedPickleSerializer()
    with override_settings(SECRET_KEY="not-ours"):
        forged = serializer.dumps(Mark(mark), bucket=BUCKET, key=KEY)

    with pytest.raises(Unreadable):
        serializer.loads(forged, bucket=BUCKET, key=KEY)
    assert not mark.exists()

    pickle.loads(forged[32:])
    assert mark.exists()


def test_values_of_a_fallback_key_are_read_and_rewritten_with_the_new_key() -> None:
    serializer = SignedPickleSerializer()
    with override_settings(SECRET_KEY="old"):
        old = serializer.dumps("value", bucket=BUCKET, key=KEY)

    with override_settings(SECRET_KEY="new"), pytest.raises(Unreadable, match="SECRET_KEY"):
        serializer.loads(old, bucket=BUCKET, key=KEY)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "old"]):
        assert serializer.loads(old, bucket=BUCKET, key=KEY) == "value"
        renewed = serializer.dumps("value", bucket=BUCKET, key=KEY)
    with override_settings(SECRET_KEY="new"):
        assert serializer.loads(renewed, bucket=BUCKET, key=KEY) == "value"


def test_an_empty_fallback_key_is_ignored() -> None:
    serializer = SignedPickleSerializer()
    salt = "django_nats.serializers.SignedPickleSerializer"
    pickled = pickle.dumps("value")
    names = [len(name).to_bytes(8, "big") + name.encode() for name in (BUCKET, KEY)]
    signed = b"".join(names) + pickled

    # Signed by hand, since Django refuses to run with an empty SECRET_KEY.
    def signed_with(secret: str) -> bytes:
        return salted_hmac(salt, signed, secret, algorithm="sha256").digest() + pickled

    with override_settings(SECRET_KEY="ours", SECRET_KEY_FALLBACKS=["", "old"]):
        assert serializer.loads(signed_with("old"), bucket=BUCKET, key=KEY) == "value"
        with pytest.raises(Unreadable):
            serializer.loads(signed_with(""), bucket=BUCKET, key=KEY)


def test_without_msgpack_the_error_says_what_to_install() -> None:
    run = in_new_interpreter(
        "import sys; sys.modules['msgpack'] = None\n"
        "from django_nats.serializers import MsgPackSerializer\n"
        "try: MsgPackSerializer()\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    assert run.startswith(ImproperlyConfigured.__name__)
    assert 'pip install "django-nats[msgpack]"' in run


def test_the_module_imports_neither_django_nor_msgpack() -> None:
    run = in_new_interpreter(
        "import sys, django_nats.serializers; print({'django', 'msgpack'} & set(sys.modules))"
    )
    assert run == "set()"


def in_new_interpreter(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()
