from __future__ import annotations

import lzma
import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from django_nats.compressors import (
    Compressor,
    Lz4Compressor,
    LzmaCompressor,
    ZlibCompressor,
    ZstdCompressor,
)
from django_nats.exceptions import Unreadable

pytestmark = pytest.mark.smoke

MIB = 1024 * 1024

every_compressor = pytest.mark.parametrize(
    "made", [ZlibCompressor, LzmaCompressor, Lz4Compressor, ZstdCompressor]
)


@every_compressor
@given(data=st.binary(min_size=1, max_size=3000))
def test_values_of_exactly_the_limit_round_trip(made: type[Compressor], data: bytes) -> None:
    compressor = made()
    assert compressor.decompress(compressor.compress(data), limit=len(data)) == data


@every_compressor
@pytest.mark.parametrize("size", [65_536, 65_537, 3_000_000])
def test_values_of_several_blocks_round_trip(made: type[Compressor], size: int) -> None:
    compressor = made()
    data = random.Random(size).randbytes(size // 2).ljust(size, b"a")
    compressed = compressor.compress(data)
    assert compressor.decompress(compressed, limit=64 * MIB) == data
    with pytest.raises(Unreadable, match="more than"):
        compressor.decompress(compressed, limit=size - 1)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (ZlibCompressor, "zlib"),
        (LzmaCompressor, "lzma"),
        (Lz4Compressor, "lz4"),
        (ZstdCompressor, "zstd"),
    ],
)
def test_the_name_is_the_one_stored_with_values(made: type[Compressor], name: str) -> None:
    compressor = made()
    assert isinstance(compressor, Compressor)
    assert compressor.name == name


@pytest.mark.parametrize(
    ("fast", "small"),
    [
        (ZlibCompressor(), ZlibCompressor(level=9)),
        (LzmaCompressor(), LzmaCompressor(preset=9)),
        (Lz4Compressor(), Lz4Compressor(level=12)),
        (ZstdCompressor(), ZstdCompressor(level=19)),
    ],
    ids=lambda compressor: str(compressor.name),
)
def test_a_higher_level_compresses_better_and_is_read_by_any_level(
    fast: Compressor, small: Compressor
) -> None:
    numbers = random.Random(7)
    data = b"".join(b"<li>article %d</li>" % numbers.randrange(999) for _ in range(3000))
    assert len(small.compress(data)) < len(fast.compress(data)) < len(data) / 2
    assert fast.decompress(small.compress(data), limit=MIB) == data


@pytest.mark.parametrize(
    ("made", "bomb"),
    [
        (ZlibCompressor, zlib.compress),
        (LzmaCompressor, lambda data: lzma.compress(data, preset=0)),
        (Lz4Compressor, lz4.frame.compress),
        (Lz4Compressor, lambda data: lz4.frame.compress(data, store_size=False)),
        (ZstdCompressor, zstandard.ZstdCompressor().compress),
        (ZstdCompressor, zstandard.ZstdCompressor(write_content_size=False).compress),
    ],
    ids=["zlib", "lzma", "lz4", "lz4 of unknown size", "zstd", "zstd of unknown size"],
)
def test_a_bomb_is_stopped_at_the_limit(
    made: type[Compressor], bomb: Callable[[bytes], bytes]
) -> None:
    compressor, data = made(), bomb(bytes(32 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises((Unreadable, zstandard.ZstdError)):
            compressor.decompress(data, limit=MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


def test_a_small_lz4_value_does_not_allocate_the_whole_limit() -> None:
    compressor = Lz4Compressor()
    data = compressor.compress(b"a" * 2000)
    tracemalloc.start()
    try:
        compressor.decompress(data, limit=64 * MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_a_frame_of_unknown_size_is_read() -> None:
    """Streaming writers in other languages produce such frames."""
    zstd = zstandard.ZstdCompressor(write_content_size=False).compress(b"a" * 2000)
    assert ZstdCompressor().decompress(zstd, limit=2000) == b"a" * 2000
    lz4_frame = lz4.frame.compress(b"a" * 2000, store_size=False)
    assert Lz4Compressor().decompress(lz4_frame, limit=2000) == b"a" * 2000


def test_an_xz_header_that_asks_for_gigabytes_is_refused() -> None:
    compressor = LzmaCompressor()
    data = bytearray(compressor.compress(b"a" * 2000))
    start, end = 12, 12 + (data[12] + 1) * 4  # the block header, after that of the stream
    assert data[start + 2 : start + 4] == b"\x21\x01"  # LZMA2, with one byte: its dictionary size
    data[start + 4] = 40  # 4 GiB
    data[end - 4 : end] = zlib.crc32(data[start : end - 4]).to_bytes(4, "little")
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        compressor.decompress(bytes(data), limit=MIB)


@every_compressor
def test_truncated_data_is_refused(made: type[Compressor]) -> None:
    compressor = made()
    data = compressor.compress(b"a value " * 200)
    for length in range(len(data)):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
            compressor.decompress(data[:length], limit=MIB)


@every_compressor
def test_trailing_data_is_refused(made: type[Compressor]) -> None:
    compressor = made()
    data = compressor.compress(b"a value " * 200)
    for more in (b"\0", b"garbage", data):
        with pytest.raises((Unreadable, zstandard.ZstdError)):
            compressor.decompress(data + more, limit=MIB)


def test_data_after_an_empty_zstd_frame_is_refused() -> None:
    compressor = ZstdCompressor()
    with pytest.raises(Unreadable, match=r"empty|followed"):
        compressor.decompress(compressor.compress(b"") + b"garbage", limit=MIB)


@every_compressor
def test_a_damaged_byte_never_gives_another_value(made: type[Compressor]) -> None:
    compressor, original = made(), random.Random(3).randbytes(300) + b"a value " * 200
    data = compressor.compress(original)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        try:
            result = compressor.decompress(bytes(damaged), limit=MIB)
        except Exception:
            continue
        assert result == original  # the flipped bit carried no data


@pytest.mark.parametrize(
    ("made", "hidden", "extra"),
    [
        ("Lz4Compressor", ["lz4", "lz4.frame"], "lz4"),
        ("ZstdCompressor", ["compression.zstd", "zstandard"], "zstd"),
    ],
)
def test_without_the_package_the_error_says_what_to_install(
    made: str, hidden: list[str], extra: str
) -> None:
    run = in_new_interpreter(
        f"import sys; sys.modules.update(dict.fromkeys({hidden}))\n"
        f"from django_nats.compressors import {made}\n"
        f"try: {made}()\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    assert run.startswith(f"ImproperlyConfigured {made} needs")
    assert f'pip install "django-nats[{extra}]"' in run


def test_the_module_imports_no_optional_package() -> None:
    run = in_new_interpreter(
        "import sys, django_nats.compressors\n"
        "print({'django', 'lz4', 'zstandard', 'compression.zstd'} & set(sys.modules))"
    )
    assert run == "set()"


def in_new_interpreter(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()
