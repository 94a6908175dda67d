"""NEAR_CACHE, an option of CACHES."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..client.copies import Bounds
from ..exceptions import InvalidKey
from ..keys import subject_filter
from .reader import Reader

MEMBERS = {"KEYS", "MAX_ENTRIES", "MAX_BYTES", "MAX_STALE", "MAX_AGE", "MISSES"}
_LEAST_STALE = 0.25


@dataclass(frozen=True)
class NearCacheConfig:
    """Which keys are copied, and the bounds of the copies."""

    keys: tuple[str, ...] = ("*",)
    """Patterns of keys, without prefix and version."""
    bounds: Bounds = field(default_factory=Bounds)


def read_near_cache(reader: Reader) -> NearCacheConfig:
    """The option, which is there. Raises ImproperlyConfigured."""
    members = Reader(f"{reader.where} NEAR_CACHE", reader.mapping("NEAR_CACHE", MEMBERS))
    keys = members.options.get("KEYS", ("*",))
    if not isinstance(keys, (list, tuple)) or not keys:
        members.fail("KEYS", f'must be a list of patterns like ["flags:*"], not {keys!r}')
    for pattern in keys:
        if not isinstance(pattern, str) or not pattern:
            members.fail("KEYS", f'holds {pattern!r}; a pattern is a string like "flags:*"')
        try:
            subject_filter(pattern)
        except InvalidKey as error:
            members.fail("KEYS", f"holds {pattern!r}, which is no key's: {error}")
    default = Bounds()
    max_stale = members.seconds("MAX_STALE", default.max_stale)
    if max_stale < _LEAST_STALE:
        members.fail("MAX_STALE", f"is {max_stale:g} seconds; {_LEAST_STALE:g} is the least")
    return NearCacheConfig(
        keys=tuple(keys),
        bounds=Bounds(
            max_entries=members.whole("MAX_ENTRIES", default.max_entries),
            max_bytes=members.size("MAX_BYTES") or default.max_bytes,
            max_stale=max_stale,
            max_age=members.seconds("MAX_AGE", default.max_age),
            misses=members.boolean("MISSES", default.misses),
        ),
    )
