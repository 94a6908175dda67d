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

from ..client.protocol.steps import Call
from ..conf.limits import limit_settings
from ..limits import Limit
from ..limits.responses import note

try:
    from rest_framework import throttling
except ModuleNotFoundError as error:
    raise ImproperlyConfigured(
        f"{__name__} needs Django REST framework: pip install djangorestframework"
    ) from error

if TYPE_CHECKING:
    from ..client.protocol.steps import Steps
    from ..limits import Decision

__all__ = ["AnonRateThrottle", "ScopedRateThrottle", "SimpleRateThrottle", "UserRateThrottle"]

_DRFS_TIMER = throttling.SimpleRateThrottle.timer

_limit = lru_cache(maxsize=1024)(Limit)
"""Return the limit with these arguments: DRF makes a throttle for each request."""


class SimpleRateThrottle(throttling.SimpleRateThrottle):
    """Base of the throttles. Subclass it as DRF's, and override ``get_cache_key()``.

    The class attributes are arguments of ``Limit``. DRF's ``cache`` and ``history`` are not used.
    """

    algorithm: str = "sliding"
    """How requests of earlier windows count: "sliding" or "fixed"."""
    alias: str | None = None
    """The alias of NATS_COUNTERS; None for that of the setting NATS_LIMITS."""
    fail_open: bool | None = None
    """Whether requests are allowed while the server is away; None for FAIL_OPEN of NATS_LIMITS."""
    timeout: float | None = None
    """Seconds to wait for the server; None for REQUEST_TIMEOUT of the alias."""
    dry_run: bool | None = None
    """Whether refusals are only logged; None for DRY_RUN of NATS_LIMITS."""

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

        A request without a rate or a key, or that the setting EXEMPT exempts, is allowed and not
        counted. So are all if the setting ENABLED is false. The time is that of the server, unless
        a subclass overrides ``timer``. The decision is noted on the request, for the middleware
        that adds the headers of limits.
        """
        if self.rate is None or not limit_settings().enabled:
            return True
        self.key = self.get_cache_key(request, view)
        if self.key is None:
            return True
        limit = self.get_limit()
        self.decision = limit._run(self._decide(limit, str(self.key), request))
        if self.decision is None:
            return True
        if not limit.dry_run:
            note(request, self.decision)
        return bool(self.throttle_success() if self.decision else self.throttle_failure())

    def _decide(self, limit: Limit, key: str, request: Any) -> Steps[Decision | None]:
        """Return the decision about a request, or None if the setting EXEMPT exempts it."""
        request = getattr(request, "_request", request)  # Django's own
        exempt = limit_settings().is_exempt
        if exempt is not None and (yield Call(exempt, (request,))):
            return None
        now = None if self.timer is _DRFS_TIMER else self.timer()
        return (yield from limit._hit(key, 1, request, now))

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
