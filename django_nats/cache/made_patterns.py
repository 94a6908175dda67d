"""Patterns of users' keys as patterns of made keys, the keys that the bucket knows.

In a pattern, ``*`` matches any run of characters, ``?`` any one character and ``[abc]`` one of
those listed, as in Redis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .core import Core

_PLACEHOLDER = "3f0c6a52d1"  # a key that no KEY_FUNCTION is likely to add by itself


class MadePattern(NamedTuple):
    """A pattern of made keys, and what KEY_FUNCTION puts before and after a user's key."""

    pattern: str
    before: str
    after: str

    def user_key(self, made_key: str) -> str:
        """Return the user's key of a made key that matches the pattern."""
        return self.user_keys([made_key])[0]

    def user_keys(self, made_keys: Iterable[str]) -> list[str]:
        """Return the users' keys of made keys that match the pattern."""
        start, end = len(self.before), -len(self.after) or None
        return [made_key[start:end] for made_key in made_keys]


def made_pattern(cache: Core, pattern: str, version: int | None) -> MadePattern:
    """Return the pattern of the made keys of those users' keys that match a pattern.

    Raise ImproperlyConfigured if KEY_FUNCTION does not keep users' keys readable.
    """
    before, found, after = cache.make_key(_PLACEHOLDER, version=version).partition(_PLACEHOLDER)
    if not found or _PLACEHOLDER in after:
        raise ImproperlyConfigured(
            f"Cache {cache.alias!r}: keys cannot be listed, since its KEY_FUNCTION does not "
            "keep them readable"
        )
    return MadePattern(f"{_escaped(before)}{pattern}{_escaped(after)}", before, after)


def _escaped(text: str) -> str:
    """Return a pattern that matches exactly this text."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
