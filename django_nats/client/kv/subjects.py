"""The subjects of a bucket's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ... import keys
from ...exceptions import InvalidKey

MAX_KEY_BYTES = 8192
_LONG = 1000
"""Characters. The encoded form of a longer key is longer, or ends in a hash."""


class Subjects:
    """The subjects under which a bucket stores the keys that Django makes."""

    def __init__(self, bucket: str) -> None:
        self.prefix = f"$KV.{bucket}."

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

    def of_plain(self, keys_: Sequence[str]) -> list[bytes] | None:
        """Return the subjects of keys as bytes, or None if one of the keys is not a plain one."""
        encoded = keys.encode_plain(keys_)
        if encoded is None:
            return None
        return (self.prefix + f"\n{self.prefix}".join(encoded)).encode().split(b"\n")


def _require_short(key: str) -> None:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(
            f"The key {key[:60]!r}… has {len(key.encode())} bytes; at most {MAX_KEY_BYTES} can be "
            "stored. Use a digest of it."
        )
