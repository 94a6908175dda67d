"""Which keys are copied, and the subjects on which their changes arrive.

Users give patterns of their own keys, but the bucket holds made keys, with prefix and version.
Django's own KEY_FUNCTION writes the prefix, a colon, the version, a colon and the key. The prefix
with its colon is called the head here, and the version is a token of its own.

Any other function may depend on more than its arguments, for example on a tenant, so nothing is
known about its keys. They have no head, and the whole bucket is followed and copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from django.core.cache.backends.base import BaseCache, default_key_func

from .. import keys

_ANY_VERSION = "1"  # stands for a version until a wildcard replaces it in the filter
_MAX_VERSION_LENGTH = 64
_VERSION_ROOM_BYTES = 256
"""Bytes of a subject that are reserved for the version, whose length a filter cannot know."""


def head_of(cache: BaseCache) -> str | None:
    """Return what a cache's made keys begin with, or None if a custom function makes them."""
    functions = type(cache).make_key, cache.key_func
    is_djangos = functions == (BaseCache.make_key, default_key_func)
    return f"{cache.key_prefix}:" if is_djangos else None


def user_key(head: str, made_key: str) -> tuple[str, str] | None:
    """Return the key and the version of a made key, or None if it has another prefix."""
    if not made_key.startswith(head):
        return None
    version, colon, key = made_key[len(head) :].partition(":")
    # A longer version may take more bytes of a subject than filters reserve for it.
    fits = len(version) <= _MAX_VERSION_LENGTH and version.isascii()
    return (key, version) if colon and fits else None


def covering(head: str | None, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a made key is to be copied.

    That is the case if the user's key matches one of the patterns. Without a head, every key is.
    """
    if head is None:
        return lambda made_key: True
    matchers = [keys.matcher(pattern) for pattern in patterns]

    def covers(made_key: str) -> bool:
        parts = user_key(head, made_key)
        return parts is not None and any(matches(parts[0]) for matches in matchers)

    return covers


def filters(bucket: str, head: str | None, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the subjects on which changes of the covered keys, and a clear(), arrive.

    No subject includes another, which the server would refuse.
    """
    wanted = {">"} if head is None else {_filter(head, pattern) for pattern in patterns}
    wanted.add(keys.CLEAR)
    needed = [
        each for each in wanted if not any(_includes(other, each) for other in wanted - {each})
    ]
    return tuple(f"$KV.{bucket}.{each}" for each in sorted(needed))


def _filter(head: str, pattern: str) -> str:
    escaped_head = re.sub(r"([\\*?\[\]])", r"\\\1", head)
    subject = keys.subject_filter(
        f"{escaped_head}{_ANY_VERSION}:{pattern}",
        limit=keys.MAX_SUBJECT_BYTES - _VERSION_ROOM_BYTES,
    )
    tokens = subject.split(".")
    version_index = head.count(":")
    # A hash is made of the whole key, with its version: it says nothing about other versions.
    if keys.is_hashed(subject) or len(tokens) <= version_index + 1:
        return ">"
    tokens[version_index] = "*"
    return ".".join(tokens)


def _includes(wide: str, narrow: str) -> bool:
    """Return whether one filter lets through every subject that another does."""
    narrow_tokens = narrow.split(".")
    wide_tokens = wide.split(".")
    for index, token in enumerate(wide_tokens):
        if token == ">":  # noqa: S105
            return len(narrow_tokens) > index
        if (
            index >= len(narrow_tokens)
            or narrow_tokens[index] == ">"
            or token not in ("*", narrow_tokens[index])
        ):
            return False
    return len(wide_tokens) == len(narrow_tokens)
