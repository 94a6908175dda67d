"""One interface to the limiters of all packages, each used as its documentation shows.

``hit`` counts a hit of a key, and returns a true value if it is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from django.conf import settings

from .contestants import (
    COUNTER,
    DJANGO_RATELIMIT,
    DRF_THROTTLE,
    LIMIT,
    LIMIT_FLOOR,
    LIMITS,
    LOCMEM,
)
from .measuring import TIMEOUT

DAY_S = 86_400
PATIENCE = 30.0
SLIDING, FIXED = "sliding", "fixed"

Rates = Sequence[tuple[int, int]]
"""Counts, each with the seconds of its window: one, or several where the limiter takes them."""


class Limiter(Protocol):
    hit: Callable[[str], object]

    def counted(self, key: str) -> int:
        """Return how many hits of a key count now."""


def limiter(contestant: str, cache: Any, rates: Rates, algorithm: str) -> Limiter:
    """Return the limiter of a contestant, which may use the worker's cache."""
    return _LIMITERS[contestant](cache, rates, algorithm)


class _Limit:
    """A limit of this package."""

    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        from django_nats.limits import Limit

        # By default, the first hit of a process has one second, in which it imports and connects.
        # Here many processes begin at once.
        self._limit = Limit("benchmark", *rates, algorithm=algorithm, timeout=PATIENCE)
        # An attribute, not a method, so that the calls have no extra frame.
        self.hit = self._limit.hit

    def counted(self, key: str) -> int:
        decision = self._limit.peek(key)
        assert decision.limit is not None
        assert decision.remaining is not None
        return decision.limit - decision.remaining


class _Counter:
    """A counter, which refuses nothing."""

    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        self.hit, self.counted = cache.incr, cache.get


class _Copy:
    """A value in the process, such as a limiter would remember a refusal in."""

    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        self._cache = cache
        self.hit = cache.get

    def counted(self, key: str) -> int:
        self._cache.set(key, 0, TIMEOUT)
        return 1


class _DjangoRatelimit:
    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        from django.test import RequestFactory

        ((count, seconds),) = rates
        self._request = RequestFactory().get("/")
        self._rate = f"{count}/{seconds}s"

    def hit(self, key: str) -> bool:
        return not self._usage(key, True)["should_limit"]

    def counted(self, key: str) -> int:
        return int(self._usage(key, False)["count"])

    def _usage(self, key: str, increment: bool) -> dict[str, Any]:
        from django_ratelimit.core import get_usage

        usage: dict[str, Any] = get_usage(
            self._request,
            group="benchmark",
            key=lambda group, request: key,
            rate=self._rate,
            increment=increment,
        )
        return usage


class _DRFThrottle:
    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        from rest_framework.throttling import SimpleRateThrottle

        ((count, seconds),) = rates
        assert seconds == DAY_S

        class Throttle(SimpleRateThrottle):
            rate = f"{count}/day"

            def get_cache_key(self, request: str, view: None) -> str:
                return request

        self._cache = cache
        # A new instance for each request, as views make them.
        self.hit = lambda key: Throttle().allow_request(key, None)

    def counted(self, key: str) -> int:
        return len(self._cache.get(key))


class _Limits:
    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        from limits import RateLimitItemPerSecond, storage, strategies

        ((count, seconds),) = rates
        store = storage.storage_from_string(settings.CACHES["default"]["LOCATION"])
        kind = {
            SLIDING: strategies.SlidingWindowCounterRateLimiter,
            FIXED: strategies.FixedWindowRateLimiter,
        }[algorithm]
        self._limiter = kind(store)
        self._item = RateLimitItemPerSecond(count, seconds)

    def hit(self, key: str) -> bool:
        return bool(self._limiter.hit(self._item, key))

    def counted(self, key: str) -> int:
        remaining = self._limiter.get_window_stats(self._item, key).remaining
        return int(self._item.amount - remaining)


class _Floor:
    """A socket that sends the requests of a limit of this package."""

    def __init__(self, cache: Any, rates: Rates, algorithm: str) -> None:
        self._cache = cache
        self._windows = range(len(rates))
        self._slides = algorithm == SLIDING
        self._known: set[str] = set()

    def hit(self, key: str) -> bool:
        counters = [f"{key}.{window}" for window in self._windows]
        asked: Sequence[str] = ()
        if self._slides and key not in self._known:  # the window before does not change
            self._known.add(key)
            asked = [f"{each}.before" for each in counters]
        return min(self._cache.hit(counters, asked)) > 0

    def counted(self, key: str) -> int:
        return int(self._cache.get(f"{key}.0"))


_LIMITERS: dict[str, Callable[[Any, Rates, str], Limiter]] = {
    LIMIT: _Limit,
    COUNTER: _Counter,
    LOCMEM: _Copy,
    DJANGO_RATELIMIT: _DjangoRatelimit,
    DRF_THROTTLE: _DRFThrottle,
    LIMITS: _Limits,
    LIMIT_FLOOR: _Floor,
}
