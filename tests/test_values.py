from __future__ import annotations

import enum
import pickle
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from django_nats.compressors import Lz4Compressor, LzmaCompressor, ZlibCompressor, ZstdCompressor
from django_nats.exceptions import Unreadable
from django_nats.serializers import (
    JSONSerializer,
    MsgPackSerializer,
    PickleSerializer,
    Serializer,
    SignedPickleSerializer,
)
from django_nats.values import Codec, make_codec

BUCKET = "web_cache"
KEY = ":1:user:42"
MIB = 1024 * 1024

serializers = [PickleSerializer, SignedPickleSerializer, JSONSerializer, MsgPackSerializer]
compressors = [None, ZlibCompressor, LzmaCompressor, Lz4Compressor, ZstdCompressor]


class Colour(enum.IntEnum):
    RED = 1


class Mark:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class Upper:
    """A user's own serializer, for text only."""

    name = "upper"

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        return str(value).upper().encode()

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        return data.decode()


class Greedy(Upper):
    """A serializer that runs out of memory."""

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        return bytes(2**62)


class Zeros:
    """A user's own compressor."""

    name = "zeros"

    def compress(self, data: bytes) -> bytes:
        return str(len(data)).encode()

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        return b"0" * int(data)


@pytest.mark.parametrize("serializer", serializers)
@pytest.mark.parametrize("compressor", compressors)
def test_every_combination_round_trips(serializer: type, compressor: type | None) -> None:
    codec = make_codec({"SERIALIZER": serializer, "COMPRESSOR": compressor}, bucket=BUCKET)
    for value in (None, True, -7, 1.5, "short", ["a long value"] * 500, {"é": [1, {"b": None}]}):
        payload, format = codec.encode(value, key=KEY)
        result = codec.decode(payload, format, key=KEY)
        assert result == value
        assert type(result) is type(value)


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ({}, "pickle"),
        ({"COMPRESSOR": ZlibCompressor}, "pickle+zlib"),
        ({"SERIALIZER": JSONSerializer, "COMPRESSOR": ZstdCompressor}, "json+zstd"),
        ({"SERIALIZER": SignedPickleSerializer, "COMPRESSOR": Lz4Compressor}, "signed-pickle+lz4"),
    ],
)
def test_the_format_names_serializer_and_compressor(
    options: Mapping[str, object], format: str
) -> None:
    assert make_codec(options, bucket=BUCKET).encode(["a"] * 2000, key=KEY)[1] == format


@given(st.integers())
def test_integers_are_decimal_text_with_any_serializer(number: int) -> None:
    codec = Codec(Upper())
    payload, format = codec.encode(number, key=KEY)
    assert (payload, format) == (str(number).encode(), "int")
    assert codec.decode(payload, format, key=KEY) == number
    assert codec.decode(payload, None, key=KEY) == number


def test_integers_beyond_pythons_digit_limit_use_the_serializer() -> None:
    codec = Codec()
    for digits, expected in ((4_000, "int"), (10_000, "pickle")):
        number = 10**digits - 1
        payload, format = codec.encode(number, key=KEY)
        assert format == expected
        assert codec.decode(payload, format, key=KEY) == number


@pytest.mark.parametrize("value", [True, False, Colour.RED])
def test_booleans_and_enums_use_the_serializer(value: object) -> None:
    codec = Codec()
    payload, format = codec.encode(value, key=KEY)
    assert format == "pickle"
    assert codec.decode(payload, format, key=KEY) is value


@pytest.mark.parametrize(("payload", "number"), [(b"0", 0), (b"7", 7), (b"-70", -70)])
def test_canonical_decimal_text_of_other_clients_decodes_to_an_integer(
    payload: bytes, number: int
) -> None:
    result = Codec().decode(payload, None, key=KEY)
    assert result == number
    assert type(result) is int


@pytest.mark.parametrize(
    "payload",
    [b"-0", b"007", b"+5", b"", b"\n1", b"1\n", b" 1", b"1_0", b"-", b"1.0", "٣".encode(), b"\xff"],
)
def test_other_payloads_of_other_clients_decode_to_bytes(payload: bytes) -> None:
    result = Codec().decode(payload, None, key=KEY)
    assert result == payload
    assert type(result) is bytes


def test_a_pickle_without_a_format_is_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    payload = pickle.dumps(Mark(mark))
    assert Codec().decode(payload, None, key=KEY) == payload
    assert not mark.exists()


def test_only_long_values_are_compressed() -> None:
    codec = Codec(Upper(), compressor=ZlibCompressor(), compress_min_length=100)
    assert codec.encode("a" * 99, key=KEY) == (b"A" * 99, "upper")
    payload, format = codec.encode("a" * 100, key=KEY)
    assert format == "upper+zlib"
    assert zlib.decompress(payload) == b"A" * 100


def test_values_from_one_kibibyte_are_compressed_by_default() -> None:
    codec = make_codec({"SERIALIZER": Upper, "COMPRESSOR": ZlibCompressor}, bucket=BUCKET)
    assert codec.encode("a" * 1023, key=KEY)[1] == "upper"
    assert codec.encode("a" * 1024, key=KEY)[1] == "upper+zlib"


@pytest.mark.parametrize("compressor", compressors[1:])
def test_incompressible_values_stay_uncompressed(compressor: type) -> None:
    value = random.Random(5).randbytes(5000)
    codec = make_codec({"COMPRESSOR": compressor}, bucket=BUCKET)
    payload, format = codec.encode(value, key=KEY)
    assert format == "pickle"
    assert pickle.loads(payload) == value


def test_a_value_too_large_to_decompress_is_not_compressed() -> None:
    codec = Codec(Upper(), compressor=ZlibCompressor(), max_size=2000)
    assert codec.encode("a" * 2000, key=KEY)[1] == "upper+zlib"
    assert codec.encode("a" * 2001, key=KEY) == (b"A" * 2001, "upper")


@pytest.mark.parametrize("compressor", compressors[1:])
def test_decompression_is_bounded(compressor: type) -> None:
    payload, format = Codec(compressor=compressor()).encode("a" * 5000, key=KEY)
    with pytest.raises(Unreadable, match="1,500 bytes"):
        Codec(max_size=1500).decode(payload, format, key=KEY)


def test_the_decompression_bound_is_at_least_max_value_size() -> None:
    for max_value_size, bound in ((None, 64 * MIB), (MIB, 64 * MIB), (65 * MIB, 65 * MIB)):
        assert make_codec({"MAX_VALUE_SIZE": max_value_size}, bucket=BUCKET).max_size == bound


@pytest.mark.parametrize("compressor", compressors[1:])
def test_values_of_any_known_compressor_are_read(compressor: type) -> None:
    payload, format = Codec(compressor=compressor()).encode("a" * 5000, key=KEY)
    assert format != "pickle"
    assert Codec().decode(payload, format, key=KEY) == "a" * 5000


def test_accept_lets_a_bucket_move_to_another_serializer() -> None:
    old = Codec(PickleSerializer(), compressor=ZlibCompressor())
    short, long = old.encode("short", key=KEY), old.encode(["long"] * 900, key=KEY)
    moved = make_codec({"SERIALIZER": JSONSerializer, "ACCEPT": [PickleSerializer]}, bucket=BUCKET)
    assert moved.decode(*short, key=KEY) == "short"
    assert moved.decode(*long, key=KEY) == ["long"] * 900
    assert moved.encode("short", key=KEY)[1] == "json"


@pytest.mark.parametrize("format", ["pickle", "pickle+zlib"])
def test_a_format_cannot_choose_a_serializer_that_is_not_accepted(
    format: str, tmp_path: Path
) -> None:
    mark = tmp_path / "unpickled"
    payload = pickle.dumps(Mark(mark))
    if format == "pickle+zlib":
        payload = zlib.compress(payload)
    codec = make_codec(
        {"SERIALIZER": JSONSerializer, "ACCEPT": [SignedPickleSerializer]}, bucket=BUCKET
    )

    with pytest.raises(Unreadable, match=r"'pickle' is neither .*ACCEPT"):
        codec.decode(payload, format, key=KEY)
    assert not mark.exists()

    Codec(PickleSerializer()).decode(payload, format, key=KEY)
    assert mark.exists()


def test_signed_values_are_verified_after_decompression_and_before_unpickling(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "unpickled"
    codec = make_codec({"SERIALIZER": SignedPickleSerializer}, bucket=BUCKET)
    forged = zlib.compress(bytes(32) + pickle.dumps(Mark(mark)))
    with pytest.raises(Unreadable, match="signature"):
        codec.decode(forged, "signed-pickle+zlib", key=KEY)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("payload", "format", "reason"),
    [
        (b"secret", "pickle", "pickle: UnpicklingError"),
        (b"", "pickle", "pickle: EOFError"),
        (b"cno_such_module\nSecret\n.", "pickle", "pickle: ModuleNotFoundError"),
        (b"secret", "json", "json: JSONDecodeError"),
        (b"\xff", "json", "json: UnicodeDecodeError"),
        (b"[" * 1_000_000, "json", "json: RecursionError"),
        (b"\xc1", "msgpack", "msgpack: FormatError"),
        (b"secret", "int", "int: ValueError"),
        (b"9" * 5000, None, "a number: ValueError"),
        (b"secret", "pickle+zlib", "zlib: error"),
        (b"secret" * 9, "pickle+lzma", "lzma: LZMAError"),
        (b"secret", "pickle+lz4", "lz4: "),
        (b"secret", "pickle+zstd", "zstd: "),
    ],
)
def test_the_error_of_an_unreadable_value_gives_the_reason_without_the_value(
    payload: bytes, format: str | None, reason: str
) -> None:
    codec = make_codec({"ACCEPT": [JSONSerializer, MsgPackSerializer]}, bucket=BUCKET)
    with pytest.raises(Unreadable, match=reason) as caught:
        codec.decode(payload, format, key=KEY)
    assert "secret" not in str(caught.value).lower()
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("", "serializer ''"),
        ("yaml", "serializer 'yaml'"),
        ("int+zlib", "serializer 'int'"),
        ("pickle+", "compressor ''"),
        ("pickle+rar", "compressor 'rar'"),
        ("pickle+zlib+zlib", r"compressor 'zlib\+zlib'"),
    ],
)
def test_an_unknown_format_is_unreadable(format: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        Codec().decode(b"secret", format, key=KEY)


def test_a_value_that_exhausts_memory_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="MemoryError"):
        Codec(Greedy()).decode(b"", "upper", key=KEY)


def test_refused_formats_are_not_cached_and_are_shortened_in_the_error() -> None:
    codec = Codec()
    before = len(codec._readers)
    for number in range(100):
        for format in (f"s{number}", f"pickle+c{number}", "x" * 5000, "pickle+" + "x" * 5000):
            with pytest.raises(Unreadable) as caught:
                codec.decode(b"", format, key=KEY)
            assert len(str(caught.value)) < 200
    assert len(codec._readers) == before


@pytest.mark.parametrize(
    "serializer", ["django_nats.serializers.JSONSerializer", JSONSerializer, JSONSerializer()]
)
@pytest.mark.parametrize(
    "compressor",
    ["django_nats.compressors.ZlibCompressor", ZlibCompressor, ZlibCompressor(level=9)],
)
def test_options_may_be_paths_classes_or_instances(serializer: object, compressor: object) -> None:
    codec = make_codec({"ACCEPT": [serializer], "COMPRESSOR": compressor}, bucket=BUCKET)
    assert codec.decode(b'"a"', "json", key=KEY) == "a"
    assert codec.encode("a" * 2000, key=KEY)[1] == "pickle+zlib"


def test_a_users_own_serializer_and_compressor_are_used() -> None:
    codec = make_codec(
        {"SERIALIZER": Upper, "COMPRESSOR": Zeros, "COMPRESS_MIN_LENGTH": 0}, bucket=BUCKET
    )
    payload, format = codec.encode("0" * 50, key=KEY)
    assert (payload, format) == (b"50", "upper+zeros")
    assert codec.decode(payload, format, key=KEY) == "0" * 50


@pytest.mark.parametrize("serializer", [PickleSerializer, SignedPickleSerializer])
def test_pickle_version_sets_the_protocol(serializer: type[Serializer]) -> None:
    codec = make_codec({"SERIALIZER": serializer, "PICKLE_VERSION": 2}, bucket=BUCKET)
    assert codec.encode("value", key=KEY)[0].endswith(pickle.dumps("value", 2))
    codec = make_codec({"PICKLE_VERSION": 2}, bucket=BUCKET)
    assert codec.encode("value", key=KEY)[0] == pickle.dumps("value", 2)


def named(name: str) -> Serializer:
    serializer = Upper()
    serializer.name = name
    return serializer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"SERIALIZER": "json"}, '"SERIALIZER"] cannot be imported'),
        ({"SERIALIZER": "django_nats.serializers.No"}, '"SERIALIZER"] cannot be imported'),
        ({"SERIALIZER": None}, '"SERIALIZER"] names NoneType, not a serializer'),
        ({"SERIALIZER": ZlibCompressor}, '"SERIALIZER"] names ZlibCompressor'),
        ({"SERIALIZER": pickle.Unpickler}, '"SERIALIZER"] cannot be created'),
        ({"SERIALIZER": named("int")}, "Upper has the name 'int'"),
        ({"SERIALIZER": named("a+b")}, "Upper has the name 'a+b'"),
        ({"SERIALIZER": named("a\r\nb")}, "Upper has the name"),
        ({"COMPRESSOR": JSONSerializer}, '"COMPRESSOR"] names JSONSerializer'),
        ({"ACCEPT": "django_nats.serializers.JSONSerializer"}, '"ACCEPT"] is '),
        ({"ACCEPT": [object]}, '"ACCEPT"] names object, not a serializer'),
        ({"ACCEPT": [PickleSerializer]}, "\"ACCEPT\"] has a second 'pickle'"),
        ({"ACCEPT": [JSONSerializer] * 2}, "\"ACCEPT\"] has a second 'json'"),
        ({"ACCEPT": [named("")]}, "Upper has the name ''"),
        ({"PICKLE_VERSION": True}, '"PICKLE_VERSION"] is wrong: the pickle protocol is True'),
        ({"PICKLE_VERSION": 99}, '"PICKLE_VERSION"] is wrong: the pickle protocol is 99'),
        ({"PICKLE_VERSION": 2, "SERIALIZER": JSONSerializer}, '"PICKLE_VERSION"] applies only'),
        ({"PICKLE_VERSION": 2, "SERIALIZER": PickleSerializer()}, '"PICKLE_VERSION"] applies only'),
        ({"COMPRESS_MIN_LENGTH": -1}, '"COMPRESS_MIN_LENGTH"] is -1'),
        ({"COMPRESS_MIN_LENGTH": True}, '"COMPRESS_MIN_LENGTH"] is True'),
        ({"MAX_VALUE_SIZE": "1 MB"}, "\"MAX_VALUE_SIZE\"] is '1 MB'"),
    ],
)
def test_wrong_options_are_named(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(message)):
        make_codec(options, bucket=BUCKET)


def test_a_missing_package_names_the_option_and_the_extra() -> None:
    run = in_new_interpreter(
        "import sys; sys.modules['msgpack'] = None\n"
        "from django_nats.values import make_codec\n"
        "try: make_codec({'SERIALIZER': 'django_nats.serializers.MsgPackSerializer'}, bucket='b')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    assert run.startswith('ImproperlyConfigured OPTIONS["SERIALIZER"]')
    assert 'pip install "django-nats[msgpack]"' in run


def test_a_value_whose_compressor_is_not_installed_is_unreadable() -> None:
    run = in_new_interpreter(
        "import sys; sys.modules.update(dict.fromkeys(['lz4', 'lz4.frame']))\n"
        "from django_nats.values import Codec\n"
        "try: Codec().decode(b'', 'pickle+lz4', key='k')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    assert run.startswith("Unreadable")
    assert 'pip install "django-nats[lz4]"' in run


def test_the_module_imports_no_optional_package() -> None:
    run = in_new_interpreter(
        "import sys, django_nats.values\n"
        "print({'msgpack', 'lz4', 'zstandard', 'compression.zstd', 'nats'} & set(sys.modules))"
    )
    assert run == "set()"


def in_new_interpreter(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()
