"""The contestants: caches, configured as a user would, and the floors they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = "django-nats"
ASYNCIO = "django-nats, asyncio"
FILE = "django-nats, file"
NEAR = "django-nats, near cache"
SESSIONS = "django-nats, its sessions"
COUNTER = "django-nats, counter"
FILE_COUNTER = "django-nats, counter, file"
LIMIT = "django-nats, limit"
DJANGO_REDIS_CACHE = "Django's RedisCache"
DJANGO_REDIS = "django-redis"
VCACHE = "django-vcache"
DJANGO_RATELIMIT = "django-ratelimit"
DRF_THROTTLE = "DRF's throttle"
LIMITS = "limits"
LOCMEM = "LocMemCache"
EMPTY_VIEW = "empty view"
NATS_FLOOR = "NATS socket"
COUNTER_FLOOR = "NATS socket, counter"
LIMIT_FLOOR = "NATS socket, limit"
REDIS_FLOOR = "Redis socket"


@dataclass(frozen=True)
class Contestant:
    """One way to cache.

    ``entry`` returns its entry of CACHES for the address (host:port) of its server.
    """

    name: str
    entry: Callable[[str], dict[str, Any]]
    server: str | None = None
    """"nats", "redis", "memcached", or None for a cache within the process."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed for it to take part."""
    environment: Mapping[str, str] = field(default_factory=dict)
    floor: bool = False
    """True if it is not a cache, but the least that any client of its server must do.

    A floor has get, set, get_many and set_many, or only the methods that its one question needs. It
    is used by one thread at a time.
    """
    asynchronous: bool = True
    """True if it has Django's async methods as well as the sync ones."""
    only: tuple[str, ...] = ()
    """The names of the questions it takes part in. Empty: all questions."""


def _nats(bucket: str, storage: str = "memory", **options: Any) -> Callable[[str], dict[str, Any]]:
    # Redis and memcached keep everything in memory, and here Redis persists nothing.
    return lambda address: {
        "BACKEND": "django_nats.cache.NatsCache",
        "LOCATION": f"nats://{address}",
        "OPTIONS": {"BUCKET": bucket, "STORAGE": storage, **options},
    }


def _counters(stream: str, storage: str = "memory") -> Callable[[str], dict[str, Any]]:
    return lambda address: {
        "BACKEND": "tests.benchmarks.counting.CounterCache",
        "LOCATION": f"nats://{address}",
        "OPTIONS": {"STREAM": stream, "STORAGE": storage},
    }


def _at(backend: str, location: str) -> Callable[[str], dict[str, Any]]:
    return lambda address: {"BACKEND": backend, "LOCATION": location.format(address)}


_REDIS = "redis://{}"
_VALKEY = "valkey://{}"
_COUNTED = ("async", "contention", "counters", "history", "limits")
_LIMITED = ("limits", "limit_keys")
_UVLOOP, _ASYNCIO = {"DJANGO_NATS_LOOP": ""}, {"DJANGO_NATS_LOOP": "asyncio"}
_DJANGO = "django.core.cache.backends"
_FLOORS = "tests.benchmarks.floors"

# Each has its own bucket, or its own Redis database: they cannot read each other's formats, and
# clear() deletes everything there.
CONTESTANTS = (
    Contestant(OURS, _nats("uvloop"), "nats", ("uvloop",), _UVLOOP),
    Contestant(ASYNCIO, _nats("asyncio"), "nats", environment=_ASYNCIO),
    Contestant(FILE, _nats("file", "file"), "nats", ("uvloop",), _UVLOOP),
    Contestant(NEAR, _nats("near", NEAR_CACHE={}), "nats", ("uvloop",), _UVLOOP, only=("near",)),
    Contestant(SESSIONS, _nats("sessions"), "nats", ("uvloop",), _UVLOOP, only=("sessions",)),
    Contestant(COUNTER, _counters("memory"), "nats", ("uvloop",), _UVLOOP, only=_COUNTED),
    Contestant(
        FILE_COUNTER, _counters("file", "file"), "nats", ("uvloop",), _UVLOOP, only=_COUNTED
    ),
    Contestant(LIMIT, _counters("limits"), "nats", ("uvloop",), _UVLOOP, only=_LIMITED),
    Contestant(
        DJANGO_REDIS_CACHE, _at(f"{_DJANGO}.redis.RedisCache", _REDIS + "/0"), "redis", ("redis",)
    ),
    Contestant(
        DJANGO_REDIS,
        _at("django_redis.cache.RedisCache", _REDIS + "/1"),
        "redis",
        ("django_redis", "hiredis"),
    ),
    Contestant(
        "django-valkey",
        _at("django_valkey.cache.ValkeyCache", _VALKEY + "/2"),
        "redis",
        ("django_valkey",),
        asynchronous=False,  # its AsyncValkeyCache has only async methods
    ),
    Contestant(
        VCACHE,
        _at("django_vcache.backend.ValkeyCache", _VALKEY + "/3"),
        "redis",
        ("django_vcache",),
    ),
    Contestant(
        "django-cachex",
        _at("django_cachex.cache.ValkeyCache", _VALKEY + "/4"),
        "redis",
        ("django_cachex", "valkey"),
    ),
    # The limiters of other packages, on Redis. The first two count in Django's cache.
    Contestant(
        DJANGO_RATELIMIT,
        _at("django_redis.cache.RedisCache", _REDIS + "/6"),
        "redis",
        ("django_ratelimit", "django_redis", "hiredis"),
        only=_LIMITED,
    ),
    Contestant(
        DRF_THROTTLE,
        _at("django_redis.cache.RedisCache", _REDIS + "/7"),
        "redis",
        ("rest_framework", "django_redis", "hiredis"),
        only=_LIMITED,
    ),
    Contestant(
        LIMITS,
        _at("django_redis.cache.RedisCache", _REDIS + "/8"),
        "redis",
        ("limits", "django_redis", "hiredis"),
        only=_LIMITED,
    ),
    Contestant(
        "PyMemcache",
        _at(f"{_DJANGO}.memcached.PyMemcacheCache", "{}"),
        "memcached",
        ("pymemcache",),
    ),
    # On Python 3.13 pylibmc writes 31 tracebacks for every client made without behaviors.
    Contestant(
        "pylibmc",
        lambda address: {
            "BACKEND": f"{_DJANGO}.memcached.PyLibMCCache",
            "LOCATION": address,
            "OPTIONS": {"behaviors": {}},
        },
        "memcached",
        ("pylibmc",),
    ),
    # MAX_ENTRIES is more than any question stores. The default is 300.
    Contestant(
        LOCMEM,
        lambda _: {
            "BACKEND": f"{_DJANGO}.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 2_000_000},
        },
    ),
    # The ceiling: a request without a cache.
    Contestant(
        EMPTY_VIEW,
        lambda _: {"BACKEND": f"{_DJANGO}.dummy.DummyCache"},
        only=("requests", "network"),
    ),
    Contestant(NATS_FLOOR, _at(f"{_FLOORS}.NatsFloor", "{}"), "nats", floor=True),
    Contestant(
        COUNTER_FLOOR,
        _at(f"{_FLOORS}.CounterFloor", "{}"),
        "nats",
        floor=True,
        only=("contention",),
    ),
    Contestant(
        LIMIT_FLOOR, _at(f"{_FLOORS}.LimitFloor", "{}"), "nats", floor=True, only=("limits",)
    ),
    Contestant(REDIS_FLOOR, _at(f"{_FLOORS}.RedisFloor", "{}/5"), "redis", floor=True),
)


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names in the order of CONTESTANTS, followed by unknown names."""
    order = [contestant.name for contestant in CONTESTANTS]
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else 99, name))


def is_bound(name: str) -> bool:
    """Return True if the contestant is not a cache, but a floor or the ceiling."""
    return any(each.name == name and (each.floor or name == EMPTY_VIEW) for each in CONTESTANTS)
