"""Which keys are copied, and the subjects on which their changes are told.

Patterns are those of users' keys; what the bucket holds are made keys, with prefix and version.
Django's own KEY_FUNCTION keeps them apart: after the head of its keys, the prefix and a colon, the
version is a token of its own. Another function may depend on more than its arguments, as on a
tenant, and nothing is known of its keys: they have no head, and the whole bucket is followed and
copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from django.core.cache.backends.base import BaseCache, default_key_func

from .. import keys

_VERSION = "1"  # any: in a filter, a wildcard takes its place
_MOST_VERSION = 64
_ROOM = 256
"""Bytes of a subject left to versions, which no filter can know."""


def head_of(cache: BaseCache) -> str | None:
    """What a cache's keys begin with, before the version; None unless Django makes them."""
    own = type(cache).make_key, cache.key_func
    return f"{cache.key_prefix}:" if own == (BaseCache.make_key, default_key_func) else None


def user_key(head: str, made: str) -> tuple[str, str] | None:
    """Key and version of a made key; None for one of another prefix."""
    if not made.startswith(head):
        return None
    version, found, key = made[len(head) :].partition(":")
    # No more of a subject than _ROOM.
    narrow = len(version) <= _MOST_VERSION and version.isascii()
    return (key, version) if found and narrow else None


def covering(head: str | None, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a made key is one of the patterns'; without a head, every key is."""
    if head is None:
        return lambda made: True
    matchers = [keys.matcher(pattern) for pattern in patterns]

    def covers(made: str) -> bool:
        found = user_key(head, made)
        return found is not None and any(matches(found[0]) for matches in matchers)

    return covers


def filters(bucket: str, head: str | None, patterns: Sequence[str]) -> tuple[str, ...]:
    """The subjects that tell of those keys and of a clear(), none of them within another."""
    found = {">"} if head is None else {_filter(head, pattern) for pattern in patterns}
    found.add(keys.CLEAR)
    narrow = [each for each in found if not any(_lets(other, each) for other in found - {each})]
    return tuple(f"$KV.{bucket}.{each}" for each in sorted(narrow))


def _filter(head: str, pattern: str) -> str:
    literally = re.sub(r"([\\*?\[\]])", r"\\\1", head)
    found = keys.subject_filter(f"{literally}{_VERSION}:{pattern}", limit=keys.LIMIT - _ROOM)
    tokens = found.split(".")
    place = head.count(":")
    # A hash is one of all of the key, the version too.
    if keys.is_hashed(found) or len(tokens) <= place + 1:
        return ">"
    tokens[place] = "*"
    return ".".join(tokens)


def _lets(wide: str, narrow: str) -> bool:
    """Whether a filter lets everything through that another does."""
    theirs = narrow.split(".")
    ours = wide.split(".")
    for index, token in enumerate(ours):
        if token == ">":  # noqa: S105
            return len(theirs) > index
        if index >= len(theirs) or theirs[index] == ">" or token not in ("*", theirs[index]):
            return False
    return len(ours) == len(theirs)
