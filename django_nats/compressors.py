"""Compressors: zlib, xz, LZ4 and Zstandard.

Importing this module imports neither lz4 nor zstandard. A compressor imports what it needs when it
is created. The default levels are the fastest of each format, since a cache compresses on every
write.
"""

from __future__ import annotations

import lzma
import zlib
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from django_nats.exceptions import Unreadable


@runtime_checkable
class Compressor(Protocol):
    """The interface of the object that OPTIONS["COMPRESSOR"] accepts.

    Many threads call the methods at the same time.
    """

    @property
    def name(self) -> str:
        """Return the name that is stored with a value, so that its reader can be found."""

    def compress(self, data: bytes) -> bytes:
        """Return the compressed form of ``data``, which is never empty."""

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Return the original of ``data``, which has at most ``limit`` bytes.

        Raise any error if the original is larger, without producing more than one byte beyond the
        limit, and if ``data`` is damaged, truncated, or followed by other bytes.
        """


class ZlibCompressor:
    """Compresses with zlib (RFC 1950), from the standard library."""

    name = "zlib"

    def __init__(self, level: int = 1) -> None:
        """Use a level from 1 (fastest) to 9 (smallest result)."""
        self._level = level

    def compress(self, data: bytes) -> bytes:
        """Return the data as a zlib stream."""
        return zlib.compress(data, self._level)

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Return the original of a zlib stream, as described in ``Compressor``."""
        return _decompress(zlib.decompressobj(), data, limit)


class LzmaCompressor:
    """Compresses with xz, from the standard library: the smallest results, but slow."""

    name = "lzma"

    def __init__(self, preset: int = 0) -> None:
        """Use a preset from 0 (fastest) to 9 (smallest result)."""
        self._preset = preset

    def compress(self, data: bytes) -> bytes:
        """Return the data as an xz file."""
        return lzma.compress(data, preset=self._preset)

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Return the original of an xz file, as described in ``Compressor``."""
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        return _decompress(decompressor, data, limit)


class Lz4Compressor:
    """Compresses to LZ4 frames, which takes the least time. Requires the extra ``lz4``."""

    name = "lz4"

    def __init__(self, level: int = 0) -> None:
        """Use a level from 0 (fastest) to 16 (smallest result).

        Raise ImproperlyConfigured if lz4 is not installed.
        """
        self._level = level
        self._frame = _package("lz4.frame", needed_by=type(self), extra="lz4")

    def compress(self, data: bytes) -> bytes:
        """Return the data as an LZ4 frame with a checksum."""
        compressed: bytes = self._frame.compress(
            data, compression_level=self._level, content_checksum=True
        )
        return compressed

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Return the original of an LZ4 frame, as described in ``Compressor``."""
        # lz4 allocates as much as it may return, so allow no more than the frame announces.
        announced = self._frame.get_frame_info(data)["content_size"]
        bound = min(announced or limit, limit)
        return _decompress(self._frame.LZ4FrameDecompressor(), data, bound)


class ZstdCompressor:
    """Compresses with Zstandard, which is fast and has small results.

    Python 3.14 includes it. Earlier versions require the extra ``zstd``.
    """

    name = "zstd"

    def __init__(self, level: int = 1) -> None:
        """Use a level from 1 (fastest) to 22 (smallest result).

        Raise ImproperlyConfigured if Zstandard is not installed.
        """
        self._level = level
        self._stdlib: Any = None
        try:
            self._stdlib = import_module("compression.zstd")
        except ImportError:
            self._package = _package("zstandard", needed_by=type(self), extra="zstd")

    def compress(self, data: bytes) -> bytes:
        """Return the data as a Zstandard frame with a checksum."""
        compressed: bytes
        if self._stdlib:
            parameter = self._stdlib.CompressionParameter
            compressed = self._stdlib.compress(
                data,
                options={parameter.compression_level: self._level, parameter.checksum_flag: 1},
            )
        else:
            # A new object for each call: two threads cannot use one at the same time.
            compressor = self._package.ZstdCompressor(level=self._level, write_checksum=True)
            compressed = compressor.compress(data)
        return compressed

    def decompress(self, data: bytes, *, limit: int) -> bytes:
        """Return the original of a Zstandard frame, as described in ``Compressor``."""
        if self._stdlib:
            return _decompress(self._stdlib.ZstdDecompressor(), data, limit)
        # The package trusts the size that the frame announces, whatever max_output_size is, and
        # does not read any further if that is 0.
        announced = self._package.get_frame_parameters(data).content_size
        if announced == 0:
            raise Unreadable("its compressed data is empty")
        if limit < announced != self._package.CONTENTSIZE_UNKNOWN:
            raise _too_large(limit)
        original: bytes = self._package.ZstdDecompressor().decompress(
            data, max_output_size=limit, allow_extra_data=False
        )
        return original


_XZ_MEMORY_BYTES = 128 * 1024 * 1024
"""Decompressing the result of ``xz -9`` takes 65 MiB, but a header can ask for 4 GiB."""


def _package(module: str, *, needed_by: type, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as exc:
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(
            f'{needed_by.__name__} needs {module}: pip install "django-nats[{extra}]"'
        ) from exc


def _decompress(decompressor: Any, data: bytes, limit: int) -> bytes:
    """Decompress with an object that has the interface of those in the standard library."""
    # One byte more than the limit shows whether the original is larger.
    original: bytes = decompressor.decompress(data, max_length=limit + 1)
    if len(original) > limit:
        raise _too_large(limit)
    if not decompressor.eof:
        raise Unreadable("its compressed data is truncated")
    if decompressor.unused_data:
        raise Unreadable("its compressed data is followed by other bytes")
    return original


def _too_large(limit: int) -> Unreadable:
    return Unreadable(f"it decompresses to more than {limit:,} bytes")
