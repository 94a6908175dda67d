"""Values to bytes and back: pickle, JSON, MessagePack, signed pickle.

Importing this module imports neither Django nor msgpack; a serializer imports what it needs
when it is made.
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
    """What OPTIONS["SERIALIZER"] and OPTIONS["ACCEPT"] take.

    `key` is the made Django key the value is stored under. `loads` may raise anything: a value
    that cannot be loaded is a miss.
    """

    @property
    def name(self) -> str:
        """The name a stored value's header gives, by which its reader is found again."""

    def dumps(self, value: object, *, key: str) -> bytes: ...

    def loads(self, data: bytes, *, key: str) -> object: ...


class PickleSerializer:
    """Any picklable object, as Django's own backends store it.

    Whoever can write to the bucket can run code in the processes that read it: where that is
    not only the project itself, use `SignedPickleSerializer` or `JSONSerializer`.
    """

    name = "pickle"

    def __init__(self, protocol: int | None = None) -> None:
        """`protocol` is pickle's; None and -1 mean the highest this Python has.

        Raises ValueError when there is no such protocol.
        """
        if protocol is None:
            protocol = pickle.HIGHEST_PROTOCOL
        if type(protocol) is not int or not -1 <= protocol <= pickle.HIGHEST_PROTOCOL:
            raise ValueError(
                f"the pickle protocol is {protocol!r}, not an integer "
                f"from -1 to {pickle.HIGHEST_PROTOCOL}"
            )
        self._protocol = protocol

    def dumps(self, value: object, *, key: str) -> bytes:
        return pickle.dumps(value, self._protocol)

    def loads(self, data: bytes, *, key: str) -> object:
        return pickle.loads(data)


class SignedPickleSerializer(PickleSerializer):
    """Pickle behind an HMAC-SHA256 made with SECRET_KEY, verified before anything is unpickled.

    The key is part of what is signed, so a value copied to another key is refused there. An
    older value of the same key is not: a signature says who wrote a value, not when. Values
    signed with one of SECRET_KEY_FALLBACKS are read, and signed anew when next written. Integers
    are stored as decimal text and carry no signature.

    The bytes are the 32 of the digest, then the pickle's.
    """

    name = "signed-pickle"

    def dumps(self, value: object, *, key: str) -> bytes:
        data = super().dumps(value, key=key)
        return next(_signatures(data, key)) + data

    def loads(self, data: bytes, *, key: str) -> object:
        signature, data = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not any(compare_digest(signature, valid) for valid in _signatures(data, key)):
            raise Unreadable(
                "its signature does not match: it was altered, moved here from another key, "
                "or signed with another SECRET_KEY"
            )
        return super().loads(data, key=key)


class JSONSerializer:
    """Compact UTF-8 JSON through DjangoJSONEncoder, which any language reads.

    As ever with JSON, tuples come back as lists, dates and decimals as text, and the keys of
    mappings as strings. NaN and the infinities, which JSON does not have, raise ValueError.
    """

    name = "json"

    def __init__(self) -> None:
        from django.core.serializers.json import DjangoJSONEncoder

        self._encode = DjangoJSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode

    def dumps(self, value: object, *, key: str) -> bytes:
        return self._encode(value).encode()

    def loads(self, data: bytes, *, key: str) -> object:
        # Decoded here because json.loads takes bytes for UTF-16 and UTF-32 as well.
        return json.loads(data.decode())


class MsgPackSerializer:
    """MessagePack: smaller and faster than JSON, with bytes, read by other languages.

    Tuples come back as lists. Needs the extra `msgpack`.
    """

    name = "msgpack"

    def __init__(self) -> None:
        """Raises ImproperlyConfigured where msgpack is not installed."""
        try:
            import msgpack
        except ImportError as exc:
            from django.core.exceptions import ImproperlyConfigured

            raise ImproperlyConfigured(
                'MsgPackSerializer needs msgpack: pip install "django-nats[msgpack]"'
            ) from exc
        self._packb = msgpack.packb
        self._unpackb = msgpack.unpackb

    def dumps(self, value: object, *, key: str) -> bytes:
        data: bytes = self._packb(value)
        return data

    def loads(self, data: bytes, *, key: str) -> object:
        # Mappings with integer keys are written without complaint, so they must be read too.
        return self._unpackb(data, strict_map_key=False)


_SALT = "django_nats.serializers.SignedPickleSerializer"
_SIGNATURE_BYTES = 32


def _signatures(data: bytes, key: str) -> Iterator[bytes]:
    """The valid signatures of `data` under `key`: by SECRET_KEY, then by each fallback."""
    from django.conf import settings
    from django.utils.crypto import salted_hmac

    name = key.encode()
    # The length keeps key and data apart: "ab" + "c" must not sign "a" + "bc".
    head = len(name).to_bytes(8, "big") + name
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        # An empty fallback, as os.environ.get("OLD_SECRET_KEY", "") leaves, anyone can sign with.
        if secret:
            mac = salted_hmac(_SALT, head, secret, algorithm="sha256")
            mac.update(data)
            yield mac.digest()
