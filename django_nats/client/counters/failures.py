"""What a failed change of a counter means: whether it may be applied, and whether to try again."""

from __future__ import annotations

from ...exceptions import (
    AuthenticationFailed,
    BucketFull,
    LimitReached,
    NoLeader,
    NotSent,
    NotServed,
    PermissionDenied,
    ServerError,
    ThreadRefused,
    Unavailable,
)
from ...realtime import monotonic
from ..protocol import server_errors

_UNAVAILABLE = 503
_TOO_MANY_REQUESTS = 429
_LASTING = (AuthenticationFailed, ThreadRefused, PermissionDenied, LimitReached)
"""Outages that last until somebody ends them."""
_SWITCHED_OFF = frozenset(
    {
        server_errors.NOT_ENABLED_FOR_ACCOUNT,
        server_errors.NOT_ENABLED,
        server_errors.NO_LIMITS,
        server_errors.STREAM_UNSUPPORTED,
        server_errors.CONSUMER_UNSUPPORTED,
    }
)
"""States that operators end. What is published in the background goes on trying."""


def reached_no_stream(failure: Unavailable | ServerError) -> bool:
    """Return True if nobody listened: the request has certainly reached no stream."""
    return isinstance(failure, NoLeader) and failure.err_code == 0


def passes(failure: Unavailable | ServerError) -> bool:
    """Return True if a failure is temporary, so that it makes sense to try again."""
    if isinstance(failure, Unavailable):
        return not isinstance(failure, _LASTING)
    # Of those with code 500, the temporary ones are NoLeader: the others come again each time.
    in_flight = failure.err_code in (server_errors.SAME_ID_IN_FLIGHT, server_errors.WRITE_IN_FLIGHT)
    busy = failure.code in (_UNAVAILABLE, _TOO_MANY_REQUESTS)
    return in_flight or (busy and not isinstance(failure, BucketFull))


def is_waited_for(failure: Unavailable | ServerError) -> bool:
    """Return True if a failure may pass while a caller waits for it, until DEADLINE."""
    return passes(failure) and getattr(failure, "err_code", 0) not in _SWITCHED_OFF


def may_be_applied(failure: Unavailable | ServerError) -> bool:
    """Return True if the server may have applied the request, or may still do so."""
    if isinstance(failure, (NotSent, NotServed)) or reached_no_stream(failure):
        return False
    return passes(failure) and getattr(failure, "code", 0) != _TOO_MANY_REQUESTS


class Outage:
    """A row of failures: the calls made during it wait for one DEADLINE in all.

    Without this, each of the calls that a page makes one after the other would wait that long.
    """

    def __init__(self, patience: float) -> None:
        self._patience_s = patience
        self._began_and_last: tuple[float, float] | None = None
        """When the first call of the row began, and when one last failed; None for no outage."""

    def deadline(self, now: float) -> float:
        """Return when a call that begins now gives up, by the monotonic clock."""
        if self._began_and_last is not None:
            began, last_failure = self._began_and_last
            if now - last_failure <= self._patience_s:
                return began + self._patience_s
        return now + self._patience_s

    def note_failure(self, begun: float) -> None:
        """Note that a call has failed that began at a moment of the monotonic clock."""
        now = monotonic()
        if self._began_and_last is not None and now - self._began_and_last[1] <= self._patience_s:
            begun = self._began_and_last[0]
        self._began_and_last = (begun, now)

    def end(self) -> None:
        """Note that a call has succeeded."""
        self._began_and_last = None
