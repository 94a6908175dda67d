"""Read NEAR_CACHE, an option of CACHES."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..client.kv.copies import Bounds
from ..exceptions import InvalidKey
from ..keys import subject_filter
from .reader import Reader

MEMBERS = {"KEYS", "MAX_ENTRIES", "MAX_BYTES", "MAX_STALE", "MAX_AGE", "MISSES"}
_SHORTEST_STALE_S = 0.25


@dataclass(frozen=True)
class NearCacheConfig:
    """The keys of which each process keeps copies, and the bounds of these copies."""

    keys: tuple[str, ...] = ("*",)
    """Patterns of keys, without KEY_PREFIX and version."""
    bounds: Bounds = field(default_factory=Bounds)


def read_near_cache(reader: Reader) -> NearCacheConfig:
    """Return the option, which must be present. Raises ImproperlyConfigured."""
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
            members.fail("KEYS", f"holds {pattern!r}, which no key can match: {error}")
    default = Bounds()
    max_stale = members.seconds("MAX_STALE", default.max_stale)
    if max_stale < _SHORTEST_STALE_S:
        members.fail("MAX_STALE", f"must be at least {_SHORTEST_STALE_S:g} s, not {max_stale:g} s")
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
