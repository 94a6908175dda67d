"""Conversion of values to payloads and back, and the format header that says how to read a payload.

A format is the name of the serializer, followed by ``+`` and the name of the compressor if the
payload is compressed, or ``int``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_nats.compressors import (
    Compressor,
    Lz4Compressor,
    LzmaCompressor,
    ZlibCompressor,
    ZstdCompressor,
)
from django_nats.exceptions import Unreadable
from django_nats.serializers import PickleSerializer, Serializer

COMPRESS_MIN_BYTES = 1024
"""Serialized values that are smaller are stored uncompressed."""

MAX_DECOMPRESSED_BYTES = 64 * 1024 * 1024
"""More than any value in a cache should have, and less than what would harm a process."""

INT = "int"
"""The format of integers: decimal text, with any serializer."""


@dataclass(frozen=True, eq=False)
class Codec:
    """Converts values to payloads with a format, and back.

    ``serializer`` and ``compressor`` write values. ``serializer`` and the serializers in ``accept``
    read values, compressed by any compressor that is installed: decompression executes no code, and
    its result is limited to ``max_size``. The format selects one of these and cannot name another
    one, since any program with access to the bucket can write a format. ``bucket`` is the name of
    the bucket that holds the values. Sizes are in bytes.
    """

    serializer: Serializer = field(default_factory=PickleSerializer)
    accept: tuple[Serializer, ...] = ()
    compressor: Compressor | None = None
    compress_min_length: int = COMPRESS_MIN_BYTES
    max_size: int = MAX_DECOMPRESSED_BYTES
    bucket: str = ""
    _readers: _Readers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        serializers = (self.serializer, *self.accept)
        for part in (*serializers, self.compressor):
            if part is not None and (part.name == INT or not _NAME.fullmatch(part.name)):
                raise ImproperlyConfigured(
                    f"{type(part).__name__} has the name {part.name!r}: a name is made of "
                    f'letters, digits, "." , "_" and "-", and is not "{INT}"'
                )
        object.__setattr__(self, "_readers", _Readers(serializers, self.compressor, self.max_size))

    def encode(self, value: object, *, key: str) -> tuple[bytes, str]:
        """Return the payload of a value and its format.

        Raise the serializer's or compressor's own error if it refuses the value, and TypeError if
        the serializer does not return bytes.
        """
        if type(value) is int:
            try:
                return b"%d" % value, INT
            except ValueError:
                pass  # more digits than sys.get_int_max_str_digits() allows: serialize it
        serializer, compressor = self.serializer, self.compressor
        data = serializer.dumps(value, bucket=self.bucket, key=key)
        if not isinstance(data, bytes):
            raise TypeError(
                f"{type(serializer).__name__}.dumps returned {type(data).__name__}, not bytes"
            )
        # Data over max_size stays uncompressed: decode() would refuse it, and the bucket refuses
        # it now, as too large to store.
        if compressor is not None and self.compress_min_length <= len(data) <= self.max_size:
            compressed = compressor.compress(data)
            if len(compressed) < len(data):
                return compressed, f"{serializer.name}+{compressor.name}"
        return data, serializer.name

    def decode(self, payload: bytes, format: str | None, *, key: str) -> object:
        """Return the value of a payload.

        Other clients write no format. Then return an integer if the payload is decimal text, and
        the payload itself if not. Raise Unreadable if the value cannot be read. The error gives the
        reason without any part of the payload.
        """
        try:
            return self._readers[format](payload, bucket=self.bucket, key=key)
        except Unreadable:
            raise
        except Exception as exc:
            raise Unreadable(
                f"it cannot be read as {format or 'a number'}: {type(exc).__name__}"
            ) from exc


def make_codec(options: Mapping[str, object], *, bucket: str) -> Codec:
    """Return the codec that a cache's OPTIONS describe. Ignore options of other parts.

    SERIALIZER, COMPRESSOR and the members of ACCEPT are dotted paths, classes or instances. Values
    may decompress to at most 64 MiB, or to MAX_VALUE_SIZE bytes if that is more: a value that can
    be stored uncompressed can be stored compressed as well.

    Raise ImproperlyConfigured, which names the option, if one is wrong.
    """
    compressor = options.get("COMPRESSOR")
    accept = options.get("ACCEPT", ())
    if not isinstance(accept, (list, tuple)):
        raise _improper("ACCEPT", f"is {accept!r}, not a list of serializers")
    return Codec(
        serializer=_make_serializer(options),
        accept=tuple(_make("ACCEPT", each, Serializer) for each in accept),
        compressor=None if compressor is None else _make("COMPRESSOR", compressor, Compressor),
        compress_min_length=_size(options, "COMPRESS_MIN_LENGTH", COMPRESS_MIN_BYTES),
        max_size=max(MAX_DECOMPRESSED_BYTES, _size(options, "MAX_VALUE_SIZE", 0)),
        bucket=bucket,
    )


_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CANONICAL_INT = re.compile(rb"0|-?[1-9][0-9]*")
_COMPRESSORS: Mapping[str, type[Compressor]] = {
    each.name: each for each in (ZlibCompressor, LzmaCompressor, Lz4Compressor, ZstdCompressor)
}


class _Reader(Protocol):
    def __call__(self, data: bytes, /, *, bucket: str, key: str) -> object: ...


class _Readers(dict[str | None, _Reader]):
    """The reader of each format. That of a compressed format is created when it is first needed.

    Reading then takes one look-up, and no package is imported that no value needs. Formats that are
    refused are not stored: otherwise a writer could make this dictionary grow without limit.
    """

    def __init__(
        self, serializers: tuple[Serializer, ...], compressor: Compressor | None, limit: int
    ) -> None:
        super().__init__({None: _read_foreign, INT: _read_int})
        self._configured, self._limit = compressor, limit
        self._serializers: dict[str, Serializer] = {}
        for serializer in serializers:
            if serializer.name in self._serializers:
                raise _improper(
                    "ACCEPT",
                    f"has a second {serializer.name!r} serializer, and a format could not tell "
                    "them apart; SERIALIZER itself is always accepted",
                )
            self._serializers[serializer.name] = serializer
            self[serializer.name] = serializer.loads

    def __missing__(self, format: str) -> _Reader:
        serializer_name, _, compressor_name = format.partition("+")
        serializer = self._serializers.get(serializer_name)
        if serializer is None:
            raise Unreadable(
                f"its serializer {serializer_name[:40]!r} is neither the configured one nor in "
                'OPTIONS["ACCEPT"]'
            )
        compressor, limit = self._compressor(compressor_name), self._limit

        def read(data: bytes, /, *, bucket: str, key: str) -> object:
            plain = compressor.decompress(data, limit=limit)
            return serializer.loads(plain, bucket=bucket, key=key)

        self[format] = read
        return read

    def _compressor(self, name: str) -> Compressor:
        if self._configured is not None and self._configured.name == name:
            return self._configured
        if name not in _COMPRESSORS:
            raise Unreadable(f"its compressor {name[:40]!r} is not known")
        try:
            return _COMPRESSORS[name]()
        except ImproperlyConfigured as exc:
            raise Unreadable(str(exc)) from exc


def _read_int(data: bytes, /, *, bucket: str, key: str) -> object:
    return int(data)


def _read_foreign(data: bytes, /, *, bucket: str, key: str) -> object:
    return int(data) if _CANONICAL_INT.fullmatch(data) else data


def _make_serializer(options: Mapping[str, object]) -> Serializer:
    spec = _resolve("SERIALIZER", options.get("SERIALIZER", PickleSerializer))
    protocol: Any = options.get("PICKLE_VERSION")
    if protocol is not None:
        if not (isinstance(spec, type) and issubclass(spec, PickleSerializer)):
            raise _improper("PICKLE_VERSION", "applies only where SERIALIZER is a pickle class")
        try:
            spec = spec(protocol)
        except ValueError as exc:
            raise _improper("PICKLE_VERSION", f"is wrong: {exc}") from exc
    serializer: Serializer = _make("SERIALIZER", spec, Serializer)
    return serializer


def _make(option: str, spec: object, protocol: type[Any]) -> Any:
    part = _resolve(option, spec)
    if isinstance(part, type):
        try:
            part = part()
        except Exception as exc:
            raise _improper(option, f"cannot be created: {exc}") from exc
    if not isinstance(part, protocol):
        raise _improper(option, f"names {type(part).__name__}, not a {protocol.__name__.lower()}")
    return part


def _resolve(option: str, spec: object) -> object:
    if not isinstance(spec, str):
        return spec
    try:
        return import_string(spec)
    except ImportError as exc:
        raise _improper(option, f"cannot be imported: {exc}") from exc


def _size(options: Mapping[str, object], option: str, default: int) -> int:
    size = options.get(option)
    if size is None:
        return default
    if type(size) is not int or size < 0:
        raise _improper(option, f"is {size!r}, not a number of bytes")
    return size


def _improper(option: str, problem: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f'OPTIONS["{option}"] {problem}')
