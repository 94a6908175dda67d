"""How much of a limit a request has used, as django-ratelimit's functions say it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

from .decision import Decision
from .methods import ALL
from .request_limits import RatesSpec, RequestLimit
from .requests import KeySpec
from .views import view_name

if TYPE_CHECKING:
    from django.http import HttpRequest


class RequestUsage(TypedDict):
    """What get_usage() returns."""

    count: int
    """The requests that count now, this one included if it was let through and counted."""
    limit: int
    """The requests that the rate lets through in its time."""
    should_limit: bool
    """Whether this request, or the next one if this is not counted, is refused."""
    time_left: int
    """Whole seconds until that changes, or until nothing counts any more; -1 if unknown."""


def get_usage(
    request: HttpRequest,
    group: str | None = None,
    fn: Callable[..., Any] | None = None,
    key: KeySpec | None = None,
    rate: RatesSpec = None,
    method: str | list[str] | tuple[str, ...] | None = ALL,
    increment: bool = False,
) -> RequestUsage | None:
    """Return how much of a limit a request has used, or None if the limit does not apply.

    The arguments are those of ``@ratelimit``. Without ``group``, it is the name of the view ``fn``.
    The request is counted if ``increment`` is true. A limit does not apply to other methods, to
    exempt requests, without a rate, in a dry run, and if limits are off, or the server is away and
    FAIL_OPEN lets requests through.

    Raises ValueError or TypeError if an argument is not valid.
    """
    limit, name = _prepare(group, fn, key, rate, method)
    return _usage(limit.decide(request, name, hit=increment))


async def aget_usage(
    request: HttpRequest,
    group: str | None = None,
    fn: Callable[..., Any] | None = None,
    key: KeySpec | None = None,
    rate: RatesSpec = None,
    method: str | list[str] | tuple[str, ...] | None = ALL,
    increment: bool = False,
) -> RequestUsage | None:
    """Async version of get_usage(). Functions may be coroutine functions."""
    limit, name = _prepare(group, fn, key, rate, method)
    return _usage(await limit.adecide(request, name, hit=increment))


def is_ratelimited(
    request: HttpRequest,
    group: str | None = None,
    fn: Callable[..., Any] | None = None,
    key: KeySpec | None = None,
    rate: RatesSpec = None,
    method: str | list[str] | tuple[str, ...] | None = ALL,
    increment: bool = False,
) -> bool:
    """Return whether a limit refuses a request. The arguments are those of get_usage()."""
    usage = get_usage(request, group, fn, key, rate, method, increment)
    return usage is not None and usage["should_limit"]


async def ais_ratelimited(
    request: HttpRequest,
    group: str | None = None,
    fn: Callable[..., Any] | None = None,
    key: KeySpec | None = None,
    rate: RatesSpec = None,
    method: str | list[str] | tuple[str, ...] | None = ALL,
    increment: bool = False,
) -> bool:
    """Async version of is_ratelimited()."""
    usage = await aget_usage(request, group, fn, key, rate, method, increment)
    return usage is not None and usage["should_limit"]


def _prepare(
    group: str | None,
    fn: Callable[..., Any] | None,
    key: KeySpec | None,
    rate: RatesSpec,
    method: Any,
) -> tuple[RequestLimit, str]:
    if group is None:
        if fn is None:
            raise TypeError("get_usage() and is_ratelimited() need a group, or a view as fn")
        group = view_name(fn)
    if key is None:
        raise TypeError('get_usage() and is_ratelimited() need a key, such as "ip"')
    return RequestLimit(f"The limit of {group!r}", key=key, rate=rate, method=method), group


def _usage(decision: Decision | None) -> RequestUsage | None:
    if decision is None:
        return None
    if decision.error is not None:
        return None if decision.allowed else _AWAY.copy()
    limit, remaining = decision.limit or 0, decision.remaining or 0
    wait = decision.reset_after if decision.allowed else decision.retry_after
    return RequestUsage(
        count=limit - remaining,
        limit=limit,
        should_limit=not decision.allowed,
        time_left=-1 if math.isinf(wait) else math.ceil(wait),
    )


_AWAY = RequestUsage(count=0, limit=0, should_limit=True, time_left=-1)
