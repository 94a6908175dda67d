"""The decorator ``@ratelimit``, with the arguments of django-ratelimit's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import methods
from .algorithms import SLIDING
from .request_limits import Exempt, LimitOptions, RatesSpec, RequestLimit
from .requests import KeySpec
from .responses import note, refuse, with_headers
from .views import is_async_view, is_method, is_stand_in, view_name

if TYPE_CHECKING:
    from django.http import HttpRequest

View = TypeVar("View", bound=Callable[..., Any])


class ratelimit:
    """Limit the requests to a view: ``@ratelimit(key="user_or_ip", rate="5/m")``.

    The view may be a function or a coroutine function. For a method of a class-based view, use
    method_decorator(). Several decorators may be stacked; the outermost counts first.

    ``key`` says what is counted apart: "ip", "user", "user_or_ip", "header:…", "get:…", "post:…", a
    function of the group and the request, or the dotted path of one. ``rate`` is a rate such as
    "5/m", a list of rates, None for no limit, a function of the group and the request that returns
    one of these, or the dotted path of one. Functions may be coroutine functions if the view is
    one. ``method`` names the HTTP methods that are counted, by default all. Views with the same
    ``group``, by default the dotted name of the view, the same rates and methods share a count.

    A refused request gets a response with status 403 or 429, as the setting STATUS says. If
    ``block`` is false, the view is called, and finds ``request.limited`` true.

    Requests for which the function ``exempt`` returns true are not counted. The other arguments are
    those of Limit.

    Raises ValueError or TypeError, which name the place, if an argument is not valid.
    """

    ALL = methods.ALL
    UNSAFE = methods.UNSAFE

    def __init__(
        self,
        *,
        key: KeySpec,
        rate: RatesSpec,
        group: str | None = None,
        method: str | list[str] | tuple[str, ...] | None = methods.ALL,
        block: bool = True,
        algorithm: str = SLIDING,
        alias: str | None = None,
        fail_open: bool | None = None,
        timeout: float | None = None,
        dry_run: bool | None = None,
        exempt: Exempt | None = None,
    ) -> None:
        caller = sys._getframe(1)
        where = f"@ratelimit in {caller.f_globals.get('__name__')}, line {caller.f_lineno}"
        self._where = where
        if group is not None and not isinstance(group, str):
            raise TypeError(f"{where}: group must be a string, not {group!r}")
        if not isinstance(block, bool):
            raise TypeError(f"{where}: block must be True or False, not {block!r}")
        self._group = group
        self._block = block
        options = LimitOptions(algorithm, alias, fail_open, timeout, dry_run)
        self._limit = RequestLimit(
            where, key=key, rate=rate, method=method, exempt=exempt, options=options
        )

    def __call__(self, view: View) -> View:
        """Return the view, limited. Raises TypeError for a class and for a method of one."""
        if is_method(view):
            raise TypeError(f"{self._where}: use method_decorator(ratelimit(…)) in classes")
        group = self._group or view_name(view)
        if not is_stand_in(view):
            self._limit.declare(group)
        limit, block = self._limit, self._block
        limited: Callable[..., Any]

        if is_async_view(view):

            @wraps(view)
            async def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                decision = await limit.adecide(request, group, hit=True)
                note(request, decision)
                if block and decision is not None and not decision.allowed:
                    return refuse(request, decision)
                return with_headers(request, await view(request, *args, **kwargs))

        else:

            @wraps(view)
            def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                decision = limit.decide(request, group, hit=True)
                note(request, decision)
                if block and decision is not None and not decision.allowed:
                    return refuse(request, decision)
                return with_headers(request, view(request, *args, **kwargs))

        return cast(View, limited)
