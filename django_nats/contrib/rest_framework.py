"""Throttles for Django REST framework (DRF) that count on the server.

DRF's own read a list of times from the cache, change it, and write it back. Of requests that arrive
together, each may miss the others. Here, each request is a hit of a ``Limit``. Everything else is
DRF's: settings, rates, scopes, how clients are told apart, and the response to a refused request.
"""

from __future__ import annotations

from functools import lru_cache
from math import isinf
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from ..limits import Limit

try:
    from rest_framework import throttling
except ModuleNotFoundError as error:
    raise ImproperlyConfigured(
        f"{__name__} needs Django REST framework: pip install djangorestframework"
    ) from error

if TYPE_CHECKING:
    from ..limits import Decision

__all__ = ["AnonRateThrottle", "ScopedRateThrottle", "SimpleRateThrottle", "UserRateThrottle"]

_DRFS_TIMER = throttling.SimpleRateThrottle.timer

_limit = lru_cache(maxsize=1024)(Limit)
"""Return the limit with these arguments: DRF makes a throttle for each request."""


class SimpleRateThrottle(throttling.SimpleRateThrottle):
    """Base of the throttles. Subclass it as DRF's, and override ``get_cache_key()``.

    The class attributes ``algorithm``, ``alias``, ``fail_open``, ``timeout`` and ``dry_run`` are
    arguments of ``Limit``. DRF's attributes ``cache`` and ``history`` are not used.
    """

    algorithm: str = "sliding"
    alias: str | None = None
    fail_open: bool | None = None
    timeout: float | None = None
    dry_run: bool | None = None

    decision: Decision | None = None
    """The decision about the request; None if it is not counted, or not yet."""

    def get_limit(self) -> Limit:
        """Return the limit that counts, by the keys that get_cache_key() returns.

        All throttles of one scope count together, as those of DRF do. Raises ValueError or
        TypeError if there is no such limit, for example for a rate of more than 366 days.
        """
        return _limit(
            f"drf-{self.scope}" if self.scope else "drf",
            (self.num_requests, self.duration),
            algorithm=self.algorithm,
            alias=self.alias,
            fail_open=self.fail_open,
            timeout=self.timeout,
            dry_run=self.dry_run,
        )

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count a request, and return True if its rate allows it.

        A request without a rate, or without a key, is allowed and not counted. By default, the
        time is the server's. If a subclass overrides ``timer``, it is what that returns.
        """
        if self.rate is None:
            return True
        self.key = self.get_cache_key(request, view)
        if self.key is None:
            return True
        key, limit = str(self.key), self.get_limit()
        if self.timer is _DRFS_TIMER:
            self.decision = limit.hit(key)
        else:
            self.decision = limit._run(limit._hit(key, 1, None, now=self.timer()))
        return bool(self.throttle_success() if self.decision else self.throttle_failure())

    def throttle_success(self) -> bool:
        """Return what allow_request() returns for an allowed request. The request is counted."""
        return True

    def wait(self) -> float | None:
        """Return the seconds until the request would be allowed if there is no other.

        Return None if that is not known, since the server is away, or if the rate allows none.
        The response then has no Retry-After.
        """
        decision = self.decision
        if decision is None or decision.error is not None or isinf(decision.retry_after):
            return None
        return decision.retry_after


class AnonRateThrottle(throttling.AnonRateThrottle, SimpleRateThrottle):
    """Limits the addresses of anonymous requests, by the rate of the scope ``anon``."""


class UserRateThrottle(throttling.UserRateThrottle, SimpleRateThrottle):
    """Limits each user, or the address of anonymous requests, by the scope ``user``."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, SimpleRateThrottle):
    """Limits each user or address by the scope that a view names in ``throttle_scope``."""
