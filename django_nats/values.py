"""Values to payloads and back: serializer, compressor, and the format header that names them.

A format is the serializer's name, `+` and the compressor's name where it is compressed, or `int`.
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

COMPRESS_MIN_LENGTH = 1024
"""Bytes: what is smaller is stored uncompressed."""

MAX_DECOMPRESSED = 64 * 1024 * 1024
"""Bytes: more than any value the cache should hold, less than what would hurt a process."""

INT = "int"
"""The format of integers, decimal text whatever the serializer."""


@dataclass(frozen=True, eq=False)
class Codec:
    """Values to (payload, format) and back.

    Writes with `serializer` and `compressor`. Reads what `serializer` and those in `accept` wrote,
    compressed by any compressor that is installed: decompression runs nothing and is bounded by
    `max_size`. The format selects among these, never beyond, since whoever can write to the
    bucket chooses it. Sizes are in bytes.
    """

    serializer: Serializer = field(default_factory=PickleSerializer)
    accept: tuple[Serializer, ...] = ()
    compressor: Compressor | None = None
    compress_min_length: int = COMPRESS_MIN_LENGTH
    max_size: int = MAX_DECOMPRESSED
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
        """Returns the payload and its format; raises what the serializer raises."""
        if type(value) is int:
            try:
                return b"%d" % value, INT
            except ValueError:
                pass  # more digits than sys.get_int_max_str_digits() lets Python write
        serializer, compressor = self.serializer, self.compressor
        data = serializer.dumps(value, key=key)
        if not isinstance(data, bytes):
            raise TypeError(
                f"{type(serializer).__name__}.dumps returned {type(data).__name__}, not bytes"
            )
        # What decode would refuse for its size is better refused at once, as too large to store.
        if compressor is not None and self.compress_min_length <= len(data) <= self.max_size:
            compressed = compressor.compress(data)
            if len(compressed) < len(data):
                return compressed, f"{serializer.name}+{compressor.name}"
        return data, serializer.name

    def decode(self, payload: bytes, format: str | None, *, key: str) -> object:
        """Returns the value; without a format, as another client writes, an int or the bytes.

        Raises Unreadable, which says why but shows nothing of the payload.
        """
        try:
            return self._readers[format](payload, key=key)
        except Unreadable:
            raise
        except Exception as exc:
            raise Unreadable(
                f"it cannot be read as {format or 'a number'}: {type(exc).__name__}"
            ) from exc


def make_codec(options: Mapping[str, object]) -> Codec:
    """Builds the codec that a cache's OPTIONS ask for; options of other parts are ignored.

    SERIALIZER, COMPRESSOR and the members of ACCEPT are dotted paths, classes or instances.
    Values decompress to at most 64 MiB, or to MAX_VALUE_SIZE where that is more: what may be
    stored uncompressed may be stored compressed.

    Raises ImproperlyConfigured, naming the option.
    """
    compressor = options.get("COMPRESSOR")
    accept = options.get("ACCEPT", ())
    if not isinstance(accept, (list, tuple)):
        raise _improper("ACCEPT", f"is {accept!r}, not a list of serializers")
    return Codec(
        serializer=_make_serializer(options),
        accept=tuple(_make("ACCEPT", each, Serializer) for each in accept),
        compressor=None if compressor is None else _make("COMPRESSOR", compressor, Compressor),
        compress_min_length=_size(options, "COMPRESS_MIN_LENGTH", COMPRESS_MIN_LENGTH),
        max_size=max(MAX_DECOMPRESSED, _size(options, "MAX_VALUE_SIZE", 0)),
    )


_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CANONICAL_INT = re.compile(rb"0|-?[1-9][0-9]*")
_COMPRESSORS: Mapping[str, type[Compressor]] = {
    made.name: made for made in (ZlibCompressor, LzmaCompressor, Lz4Compressor, ZstdCompressor)
}


class _Reader(Protocol):
    def __call__(self, data: bytes, /, *, key: str) -> object: ...


class _Readers(dict[str | None, _Reader]):
    """The reader of each format; that of a compressed one is made when it is first met.

    Reading is then one look-up, and asks for no package that no value needs. What is refused is
    not kept: how many formats there are is not for the writer to choose.
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
                    f"has a second {serializer.name!r} serializer: values could not tell them "
                    "apart; SERIALIZER itself is always accepted",
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

        def read(data: bytes, /, *, key: str) -> object:
            return serializer.loads(compressor.decompress(data, limit=limit), key=key)

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


def _read_int(data: bytes, /, *, key: str) -> object:
    return int(data)


def _read_foreign(data: bytes, /, *, key: str) -> object:
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
    made = _resolve(option, spec)
    if isinstance(made, type):
        try:
            made = made()
        except Exception as exc:
            raise _improper(option, f"cannot be made: {exc}") from exc
    if not isinstance(made, protocol):
        raise _improper(option, f"names {type(made).__name__}, not a {protocol.__name__.lower()}")
    return made


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
