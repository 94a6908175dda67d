"""Options of django-redis, and of Django's RedisCache, and what replaces them."""

from __future__ import annotations

PAGE = 'See "Move from django-redis" (docs/how-to/moving-from-django-redis.md)'
SCHEMES = {"redis", "rediss", "unix", "valkey", "valkeys"}

_ONE_CLIENT = "There is one client, which needs no class"
_ONE_CONNECTION = "Each process has one connection, which needs no pool"
REPLACEMENTS = {
    "CLIENT_CLASS": _ONE_CLIENT,
    "REDIS_CLIENT_CLASS": _ONE_CLIENT,
    "REDIS_CLIENT_KWARGS": _ONE_CLIENT,
    "PARSER_CLASS": _ONE_CLIENT,
    "CONNECTION_FACTORY": _ONE_CLIENT,
    "CONNECTION_POOL_CLASS": _ONE_CONNECTION,
    "CONNECTION_POOL_KWARGS": _ONE_CONNECTION,
    "POOL_CLASS": _ONE_CONNECTION,
    "MAX_CONNECTIONS": _ONE_CONNECTION,
    "CLOSE_CONNECTION": "The connection outlives requests",
    "IGNORE_EXCEPTIONS": "Use FAIL_OPEN",
    "LOG_IGNORED_EXCEPTIONS": "What FAIL_OPEN hides is always logged, on the logger django_nats",
    "SOCKET_CONNECT_TIMEOUT": "Use CONNECT_TIMEOUT",
    "SOCKET_TIMEOUT": "Use REQUEST_TIMEOUT",
    "USERNAME": "Use USER",
    "DB": "Use a BUCKET of its own",
    "SENTINELS": "A NATS cluster fails over by itself, with REPLICAS",
    "SENTINEL_KWARGS": "A NATS cluster fails over by itself, with REPLICAS",
}
"""What to do instead, as a sentence without its period."""


def hint_for(option: object) -> str | None:
    """Return what to do about an option of django-redis, or None if it is none."""
    replacement = REPLACEMENTS.get(str(option).upper())
    return replacement and f"It is an option of django-redis. {replacement}. {PAGE}."
