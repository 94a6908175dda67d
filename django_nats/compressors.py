"""Bytes to fewer bytes and back: zlib, xz, LZ4, Zstandard.

Importing this module imports neither lz4 nor zstandard; a compressor imports what it needs when
it is made. The default levels are each format's fast end: a cache compresses on every write.
"""

from __future__ import annotations

import lzma
import zlib
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from django_nats.exceptions import Unreadable


@runtime_checkable
class Compressor(Protocol):
    """What OPTIONS["COMPRESSOR"] takes. Its methods are called by many threads at once."""

    @property
    def name(self) -> str:
        """The name a stored value's header gives, by which its reader is found again."""

    def compress(self, data: bytes) -> bytes:
        """Compresses `data`, which is never empty."""

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Returns the original, of at most `limit` bytes.

        Raises when it is larger, before more than one byte beyond the limit is held, and when
        `data` is damaged, cut off, or followed by anything else.
        """


class ZlibCompressor:
    """zlib (RFC 1950), of the standard library."""

    name = "zlib"

    def __init__(self, level: int = 1) -> None:
        """`level`: 1 (fastest) to 9 (smallest)."""
        self._level = level

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data, self._level)

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        return _decompress(zlib.decompressobj(), data, limit)


class LzmaCompressor:
    """xz, of the standard library: the smallest results, and by far the slowest."""

    name = "lzma"

    def __init__(self, preset: int = 0) -> None:
        """`preset`: 0 (fastest) to 9 (smallest)."""
        self._preset = preset

    def compress(self, data: bytes) -> bytes:
        return lzma.compress(data, preset=self._preset)

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        return _decompress(decompressor, data, limit)


class Lz4Compressor:
    """LZ4 frames: the least work. Needs the extra `lz4`."""

    name = "lz4"

    def __init__(self, level: int = 0) -> None:
        """`level`: 0 (fastest) to 16 (smallest).

        Raises ImproperlyConfigured where lz4 is not installed.
        """
        self._level = level
        self._frame = _package("lz4.frame", needed_by=type(self), extra="lz4")

    def compress(self, data: bytes) -> bytes:
        compressed: bytes = self._frame.compress(
            data, compression_level=self._level, content_checksum=True
        )
        return compressed

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        # lz4 allocates all it is allowed to return: ask for no more than the frame announces.
        announced = self._frame.get_frame_info(data)["content_size"]
        bound = min(announced or limit, limit)
        return _decompress(self._frame.LZ4FrameDecompressor(), data, bound)


class ZstdCompressor:
    """Zstandard: the best of both. Python 3.14 has it; before, it needs the extra `zstd`."""

    name = "zstd"

    def __init__(self, level: int = 1) -> None:
        """`level`: 1 (fastest) to 22 (smallest).

        Raises ImproperlyConfigured where Zstandard is not installed.
        """
        self._level = level
        self._stdlib: Any = None
        try:
            self._stdlib = import_module("compression.zstd")
        except ImportError:
            self._package = _package("zstandard", needed_by=type(self), extra="zstd")

    def compress(self, data: bytes) -> bytes:
        compressed: bytes
        if self._stdlib:
            parameter = self._stdlib.CompressionParameter
            compressed = self._stdlib.compress(
                data,
                options={parameter.compression_level: self._level, parameter.checksum_flag: 1},
            )
        else:
            # One object for each call: its state is not safe for use by two threads.
            compressor = self._package.ZstdCompressor(level=self._level, write_checksum=True)
            compressed = compressor.compress(data)
        return compressed

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        if self._stdlib:
            return _decompress(self._stdlib.ZstdDecompressor(), data, limit)
        # The package believes a size the frame announces, whatever max_output_size says, and
        # reads no further where that is 0.
        announced = self._package.get_frame_parameters(data).content_size
        if announced == 0:
            raise Unreadable("its compressed data is empty")
        if limit < announced != self._package.CONTENTSIZE_UNKNOWN:
            raise _too_large(limit)
        original: bytes = self._package.ZstdDecompressor().decompress(
            data, max_output_size=limit, allow_extra_data=False
        )
        return original


# Decompressing what `xz -9` makes takes 65 MiB; a header can ask for 4 GiB.
_XZ_MEMORY = 128 * 1024 * 1024


def _package(module: str, *, needed_by: type, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as exc:
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(
            f'{needed_by.__name__} needs {module}: pip install "django-nats[{extra}]"'
        ) from exc


def _decompress(decompressor: Any, data: bytes, limit: int) -> bytes:
    """Decompresses with an object that has the interface of the standard library's."""
    # The byte beyond the limit tells "exactly the limit" from "more".
    original: bytes = decompressor.decompress(data, max_length=limit + 1)
    if len(original) > limit:
        raise _too_large(limit)
    if not decompressor.eof:
        raise Unreadable("its compressed data is cut off")
    if decompressor.unused_data:
        raise Unreadable("its compressed data is followed by something else")
    return original


def _too_large(limit: int) -> Unreadable:
    return Unreadable(f"it decompresses to more than {limit:,} bytes")
