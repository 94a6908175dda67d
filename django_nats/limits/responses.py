"""Responses to requests that limits have counted or refused, and their headers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from django.http import HttpResponse
from django.http.response import HttpResponseBase

from ..conf.limits import limit_settings
from .decision import Decision
from .exceptions import Ratelimited, refusal_text

if TYPE_CHECKING:
    from django.http import HttpRequest

T = TypeVar("T")

_REFUSALS = (403, 429, 503)
"""The statuses of responses that may ask a client to come back later."""


class TooManyRequests(HttpResponse):
    """The response to a refused request if STATUS is 429: a line of text."""

    status_code = 429

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"{refusal_text(decision)}\n", content_type="text/plain; charset=utf-8")


def note(request: HttpRequest, decision: Decision | None) -> None:
    """Note on a request what one more of its limits has decided; None if that does not apply.

    ``request.limited`` is whether any limit refused the request, ``request.limit_decision`` the
    decision of the tightest of them, or None.
    """
    # Django REST framework's request reads what Django's has, but keeps what is set on it.
    noted: Any = getattr(request, "_request", request)
    before: Decision | None = getattr(request, "limit_decision", None)
    noted.limited = getattr(request, "limited", False) or not (decision is None or decision.allowed)
    noted.limit_decision = decision if before is None else tighter(before, decision)


def tighter(one: Decision, other: Decision | None) -> Decision:
    """Return the refusal that lasts longer, or the hit that leaves less if neither is refused."""
    if other is None:
        return one
    return min(one, other, key=_room)


def _room(decision: Decision) -> tuple[bool, float]:
    if not decision.allowed:
        return False, -decision.retry_after
    return True, math.inf if decision.remaining is None else decision.remaining


def refuse(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Return the response to a refused request, or raise Ratelimited if STATUS is 403."""
    if limit_settings().status == 403:
        raise Ratelimited(decision)
    return with_headers(request, TooManyRequests(decision))


def with_headers(request: HttpRequest, response: T) -> T:
    """Add the headers of a request's tightest limit to a response, and return the response.

    A header that a view has set stays. What is not a response, as views of some frameworks return,
    is returned as it is.
    """
    decision: Decision | None = getattr(request, "limit_decision", None)
    if decision is not None and isinstance(response, HttpResponseBase):
        for header, value in limit_headers(decision, limit_settings().headers).items():
            response.headers.setdefault(header, value)
        if response.status_code in _REFUSALS and (wait := retry_after(decision)) is not None:
            response.headers.setdefault("Retry-After", str(wait))
    return response


def retry_after(decision: Decision) -> int | None:
    """Return the whole seconds of ``Retry-After``.

    Return None if waiting is needless or of no use, or if the server did not say how long.
    """
    if decision.allowed or decision.error is not None or math.isinf(decision.retry_after):
        return None
    return max(1, math.ceil(decision.retry_after))


def limit_headers(decision: Decision, form: str | None) -> dict[str, str]:
    """Return the headers for a decision in the form that HEADERS names.

    "separate" has RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset, a number each. "draft"
    has RateLimit and RateLimit-Policy as structured fields (RFC 9651), as of
    draft-ietf-httpapi-ratelimit-headers-10; the rate's text is the name of its policy. Times are in
    seconds: until the request would be let through, or until no earlier one counts any more.
    """
    rate, remaining = decision.rate, decision.remaining
    if rate is None or remaining is None:
        return {}
    wait = retry_after(decision)
    if wait is None:
        wait = math.ceil(decision.reset_after) if decision.allowed else rate.seconds
    headers: dict[str, str] = {}
    if form in ("separate", "both"):
        headers["RateLimit-Limit"] = str(rate.count)
        headers["RateLimit-Remaining"] = str(remaining)
        headers["RateLimit-Reset"] = str(wait)
    if form in ("draft", "both"):
        headers["RateLimit-Policy"] = f'"{rate}";q={rate.count};w={rate.seconds}'
        headers["RateLimit"] = f'"{rate}";r={remaining};t={wait}'
    return headers
