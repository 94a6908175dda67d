"""The subjects of a bucket's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ... import keys
from ...exceptions import InvalidKey
from ..streams.api import DEFAULT_PREFIX

MAX_KEY_BYTES = 8192
_LONG = 1000
"""Characters. The encoded form of a longer key is longer, or ends in a hash."""


class Subjects:
    """The subjects under which a bucket stores the keys that Django makes.

    Servers do not let the subjects of buckets through to other JetStream domains. What is published
    in one has the prefix of its API before the subject, which its servers remove, and so does what
    is published through the prefix of another account.
    """

    def __init__(self, bucket: str, api_prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = f"$KV.{bucket}."
        self._via = "" if api_prefix == DEFAULT_PREFIX else f"{api_prefix}."

    def published(self, subject: str) -> str:
        """Return the subject by which a message is published that is stored under another one."""
        return self._via + subject

    def stored(self, published: bytes) -> bytes:
        """Return the subject under which a published message is stored."""
        return published[len(self._via) :]

    def all_stored(self, published: list[bytes]) -> list[bytes]:
        """Return the subjects under which published messages are stored."""
        start = len(self._via)
        return [each[start:] for each in published] if start else published

    def of(self, key: str) -> str:
        """Return the subject of a key. Raises InvalidKey if the key has over MAX_KEY_BYTES."""
        encoded = keys.encode(key)
        if len(encoded) > _LONG:
            _require_short(key)
        return self.prefix + encoded

    def of_many(self, keys_: Sequence[str]) -> dict[str, str]:
        """Return the keys by their subjects. Raises InvalidKey as ``of`` does."""
        encoded = keys.encode_plain(keys_)
        if encoded is None:
            return {self.of(key): key for key in keys_}
        return {self.prefix + each: key for each, key in zip(encoded, keys_, strict=True)}

    def plain_to_publish(self, keys_: Sequence[str]) -> list[bytes] | None:
        """Return the subjects to publish keys by, or None if one of the keys is not a plain one."""
        encoded = keys.encode_plain(keys_)
        if encoded is None:
            return None
        prefix = self._via + self.prefix
        return (prefix + f"\n{prefix}".join(encoded)).encode().split(b"\n")


def _require_short(key: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(
            f"The key {key[:60]!r}… has {len(key.encode())} bytes; at most {MAX_KEY_BYTES} can be "
            "stored. Use a digest of it."
        )
