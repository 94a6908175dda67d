"""Which keys are copied, and the subjects on which their changes are told.

Patterns are those of users' keys; what the bucket holds are made keys, with a prefix and a version
that KEY_FUNCTION has added. Where that keeps prefix, version and key apart, as Django's own does, a
feed can be narrowed to the patterns of every version; otherwise it is the whole bucket's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .. import keys

_KEY, _VERSION = "3f0c6a52d1", "7340982"
_MOST_VERSION = 64
_ROOM = 256
"""Bytes of a subject left to versions, which no filter can know."""


class Shape(NamedTuple):
    """What KEY_FUNCTION puts before the version, between version and key, and after the key."""

    head: str
    middle: str
    tail: str

    def user_key(self, made: str) -> tuple[str, str] | None:
        """Key and version of a made key; None for one of another prefix."""
        if not made.startswith(self.head) or not made.endswith(self.tail):
            return None
        rest = made[len(self.head) : len(made) - len(self.tail)]
        version, found, key = rest.partition(self.middle)
        # No more than one token, and no more of a subject than _ROOM.
        narrow = len(version) <= _MOST_VERSION and version.isascii() and ":" not in version
        return (key, version) if found and narrow else None


def shape_of(make_key: Callable[..., str]) -> Shape | None:
    """The shape of made keys; None where version and key are no tokens of their own."""
    try:
        made = make_key(_KEY, version=int(_VERSION))
    except Exception:
        return None  # a user's function, that takes no such key: then it cannot be said
    head, version, rest = made.partition(_VERSION)
    middle, key, tail = rest.partition(_KEY)
    if not version or not key or _VERSION in rest or _KEY in tail or not middle.startswith(":"):
        return None
    return Shape(head, middle, tail) if head.endswith(":") or not head else None


def covering(shape: Shape | None, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a made key is one of the patterns'; without a shape, every key is."""
    if shape is None:
        return lambda made: True
    matchers = [keys.matcher(pattern) for pattern in patterns]

    def covers(made: str) -> bool:
        found = shape.user_key(made)
        return found is not None and any(matches(found[0]) for matches in matchers)

    return covers


def filters(bucket: str, shape: Shape | None, patterns: Sequence[str]) -> tuple[str, ...]:
    """The subjects that tell of those keys and of a clear(), none of them within another."""
    found = {">"} if shape is None else {_filter(shape, pattern) for pattern in patterns}
    found.add(keys.CLEAR)
    narrow = [each for each in found if not any(_lets(other, each) for other in found - {each})]
    return tuple(f"$KV.{bucket}.{each}" for each in sorted(narrow))


def subjects_of(
    bucket: str, make_key: Callable[..., str], patterns: Sequence[str]
) -> tuple[str, ...]:
    """The subjects that a near cache follows: filters(), for what makes the keys."""
    return filters(bucket, shape_of(make_key), patterns)


def _filter(shape: Shape, pattern: str) -> str:
    head, middle, tail = (re.sub(r"([\\*?\[\]])", r"\\\1", text) for text in shape)
    glob = f"{head}{_VERSION}{middle}{pattern}{tail}"
    found = keys.subject_filter(glob, limit=keys.LIMIT - _ROOM)
    tokens = found.split(".")
    place = shape.head.count(":")
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
