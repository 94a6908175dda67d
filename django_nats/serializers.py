"""Serializers, which convert values to bytes and back: pickle, signed pickle, JSON, MessagePack.

Importing this module imports neither Django nor msgpack. A serializer imports what it needs when it
is created.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from hmac import compare_digest
from typing import Protocol, runtime_checkable

from django_nats.exceptions import Unreadable


@runtime_checkable
class Serializer(Protocol):
    """The interface of the objects that OPTIONS["SERIALIZER"] and OPTIONS["ACCEPT"] accept.

    ``bucket`` is the name of the bucket that holds the value, and ``key`` the made key under which
    it is stored, with prefix and version. Many threads call the methods at the same time.
    """

    @property
    def name(self) -> str:
        """Return the name that is stored with a value, so that its reader can be found."""

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        """Return a value as bytes. Raise any error if the value cannot be serialized."""

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        """Return the value of the bytes. If this raises any error, the value counts as missing."""


class PickleSerializer:
    """Stores any object that can be pickled, as Django's own backends do.

    A program that can write to the bucket can run code in the processes that read it. Unless only
    the project itself can write to it, use ``SignedPickleSerializer`` or ``JSONSerializer``.
    """

    name = "pickle"

    def __init__(self, protocol: int | None = None) -> None:
        """Use a protocol of pickle; None and -1 stand for the highest that this Python has.

        Raise ValueError if there is no such protocol.
        """
        if protocol is None:
            protocol = pickle.HIGHEST_PROTOCOL
        if type(protocol) is not int or not -1 <= protocol <= pickle.HIGHEST_PROTOCOL:
            raise ValueError(
                f"the pickle protocol is {protocol!r}, not an integer "
                f"from -1 to {pickle.HIGHEST_PROTOCOL}"
            )
        self._protocol = protocol

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        """Return the pickle of a value."""
        return pickle.dumps(value, self._protocol)

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        """Return the value of a pickle."""
        return pickle.loads(data)


class SignedPickleSerializer(PickleSerializer):
    """Stores a pickle with an HMAC-SHA256 of SECRET_KEY, which is verified before unpickling.

    The names of the bucket and the key are signed as well, so a value that was copied to another
    key or another bucket is refused there. An older value of the same key is accepted: a signature
    says who wrote a value, not when. In a bucket that is restored under another name, no value can
    be read. Values that were signed with one of SECRET_KEY_FALLBACKS can be read. Integers are
    stored as decimal text and carry no signature.

    The stored bytes are the 32 bytes of the digest, followed by the pickle.
    """

    name = "signed-pickle"

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        """Return the signature and the pickle of a value."""
        data = super().dumps(value, bucket=bucket, key=key)
        return next(_signatures(data, bucket, key)) + data

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        """Return the value of a signed pickle. Raise Unreadable if the signature is wrong."""
        signature, data = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not any(compare_digest(signature, valid) for valid in _signatures(data, bucket, key)):
            raise Unreadable(
                "its signature does not match: it was altered, copied here from another key or "
                "bucket, or signed with another SECRET_KEY"
            )
        return super().loads(data, bucket=bucket, key=key)


class JSONSerializer:
    """Stores compact UTF-8 JSON, written by DjangoJSONEncoder, which any language can read.

    Tuples are restored as lists, dates and decimals as text, and the keys of mappings as strings.
    NaN and infinite numbers, which JSON lacks, raise ValueError.
    """

    name = "json"

    def __init__(self) -> None:
        from django.core.serializers.json import DjangoJSONEncoder

        self._encode = DjangoJSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        """Return a value as JSON. Raise TypeError or ValueError if JSON cannot represent it."""
        return self._encode(value).encode()

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        """Return the value of a JSON document."""
        # Decoded here, since json.loads would accept UTF-16 and UTF-32 as well.
        return json.loads(data.decode())


class MsgPackSerializer:
    """Stores MessagePack, which is smaller and faster than JSON, has bytes, and is as portable.

    Tuples are restored as lists. Requires the extra ``msgpack``.
    """

    name = "msgpack"

    def __init__(self) -> None:
        """Import msgpack. Raise ImproperlyConfigured if it is not installed."""
        try:
            import msgpack
        except ImportError as exc:
            from django.core.exceptions import ImproperlyConfigured

            raise ImproperlyConfigured(
                'MsgPackSerializer needs msgpack: pip install "django-nats[msgpack]"'
            ) from exc
        self._packb = msgpack.packb
        self._unpackb = msgpack.unpackb

    def dumps(self, value: object, *, bucket: str, key: str) -> bytes:
        """Return a value as MessagePack. Raise TypeError if MessagePack cannot represent it."""
        data: bytes = self._packb(value)
        return data

    def loads(self, data: bytes, *, bucket: str, key: str) -> object:
        """Return the value of a MessagePack document."""
        # msgpack writes mappings with integer keys without an error, so they must be readable.
        return self._unpackb(data, strict_map_key=False)


_SALT = "django_nats.serializers.SignedPickleSerializer"
_SIGNATURE_BYTES = 32


def _signatures(data: bytes, bucket: str, key: str) -> Iterator[bytes]:
    """Yield the valid signatures of data under a key: by SECRET_KEY, then by each fallback."""
    from django.conf import settings
    from django.utils.crypto import salted_hmac

    # The lengths keep the parts apart: a signature of "ab" and "c" must not be one of "a" and "bc".
    names = bucket.encode(), key.encode()
    head = b"".join(len(name).to_bytes(8, "big") + name for name in names)
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        # Anyone could sign with an empty key, as os.environ.get("OLD_SECRET_KEY", "") may return.
        if secret:
            mac = salted_hmac(_SALT, head, secret, algorithm="sha256")
            mac.update(data)
            yield mac.digest()
