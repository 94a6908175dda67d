"""A limit on requests: what ``@ratelimit`` and ``get_usage`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..client import drivers
from ..client.protocol.steps import Call, Steps
from ..client.transport.session import Session
from ..conf.dotted import DOTTED_PATH, function_at
from ..conf.limits import limit_settings
from ..counters.collection import context_of
from ..keys import token
from .algorithms import SLIDING
from .decision import Decision
from .limit import MAX_NAME_BYTES, Limit
from .methods import covers, parse_methods
from .rates import Rate, parse_rate
from .requests import KeySpec, parse_key

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .limit import RateSpec

RatesSpec: TypeAlias = "RateSpec | list[RateSpec]"
"""A rate, a list of rates, or a function of the group and the request that returns either."""
Exempt: TypeAlias = "Callable[[HttpRequest], Any]"

_MAX_LIMITS = 1024


class LimitOptions(NamedTuple):
    """The arguments of a Limit, besides its name and its rates."""

    algorithm: str = SLIDING
    alias: str | None = None
    fail_open: bool | None = None
    timeout: float | None = None
    dry_run: bool | None = None


class RequestLimit:
    """The checked arguments of a limit on requests.

    Requests are counted together that have the same group, rates, methods and key, wherever they
    are counted, as django-ratelimit does it.
    """

    __slots__ = ("_exempt", "_key", "_methods", "_options", "_rates", "_where")

    def __init__(
        self,
        where: str,
        *,
        key: KeySpec,
        rate: RatesSpec,
        method: str | list[str] | tuple[str, ...] | None,
        exempt: Exempt | None = None,
        options: LimitOptions = LimitOptions(),  # noqa: B008  # it is immutable
    ) -> None:
        """Check the arguments. ``where`` is the place that error messages name.

        Raises ValueError or TypeError if one is not valid.
        """
        self._where = where
        self._key = parse_key(key, where)
        self._methods = parse_methods(method, where)
        self._rates = _parse_rates(rate, where)
        if exempt is not None and not callable(exempt):
            raise TypeError(f"{where}: exempt must be a function of the request, not {exempt!r}")
        self._exempt = exempt
        self._options = options
        if options != LimitOptions():
            try:
                Limit("@ratelimit", "1/s", **options._asdict())  # so that wrong options raise now
            except (TypeError, ValueError) as error:
                raise type(error)(f"{where}: {error}") from error

    @property
    def _session(self) -> Session:
        return context_of(self._options.alias or limit_settings().alias).session

    def declare(self, group: str) -> None:
        """Let checks and commands know the limit of a group before its first request.

        They cannot know one whose rates are a function.
        """
        if self._rates and not callable(self._rates):
            _limit(group, self._rates, self._methods, self._options)

    def decide(self, request: HttpRequest, group: str, *, hit: bool) -> Decision | None:
        """Return the decision about a request, or None if this limit does not apply to it.

        The request is counted if ``hit`` is true. Nothing applies in a dry run, which only logs.
        """
        if not self._may_apply(request):
            return None
        return drivers.run(self._session, self._decide(request, group, hit))

    async def adecide(self, request: HttpRequest, group: str, *, hit: bool) -> Decision | None:
        """Async version of decide()."""
        if not self._may_apply(request):
            return None
        return await drivers.arun(self._session, self._decide(request, group, hit))

    def _may_apply(self, request: HttpRequest) -> bool:
        # Not isinstance(), since the request of Django REST framework is no HttpRequest.
        if not hasattr(request, "META"):
            raise TypeError(
                f"{self._where}: a request is needed, not {type(request).__name__}. In classes, "
                "use method_decorator(ratelimit(…))."
            )
        return (
            self._rates != () and covers(self._methods, request.method) and limit_settings().enabled
        )

    def _decide(self, request: HttpRequest, group: str, hit: bool) -> Steps[Decision | None]:
        for exempt in (limit_settings().is_exempt, self._exempt):
            if exempt is not None and (yield Call(exempt, (request,))):
                return None
        rates = self._rates
        if callable(rates):
            rates = _parse_static(
                (yield Call(rates, (group, request))), f"{self._where}, for {group!r}"
            )
        if not rates:
            return None
        key = yield from self._key.steps(group, request)
        limit = _limit(group, rates, self._methods, self._options)
        decision = yield from (limit._hit(key, 1, request) if hit else limit._peek(key, request))
        return None if limit.dry_run else decision


@lru_cache(maxsize=_MAX_LIMITS)
def _limit(
    group: str, rates: tuple[Rate, ...], methods: tuple[str, ...], options: LimitOptions
) -> Limit:
    """Return a limit, the same for the same arguments, since it remembers what it has refused.

    Its name tells apart what is counted apart.
    """
    name = " ".join((group, *map(str, rates), *methods))
    if len(token(name)) > MAX_NAME_BYTES:
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        name = f"{name.encode('ascii', 'replace')[:24].decode()}~{digest}"
    return Limit(name, *rates, **options._asdict())


def _parse_rates(value: Any, where: str) -> Callable[..., Any] | tuple[Rate, ...]:
    if callable(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and DOTTED_PATH.fullmatch(value):
        return partial(_call_at, value, where)
    return _parse_static(value, where)


def _call_at(path: str, where: str, group: str, request: HttpRequest) -> Any:
    return function_at(path, where)(group, request)


def _parse_static(value: Any, where: str) -> tuple[Rate, ...]:
    """Return the rates of a limit; none if there is no limit."""
    parsed = [parse_rate(each, where) for each in (value if isinstance(value, list) else [value])]
    rates = tuple(rate for rate in parsed if rate is not None)
    if len({rate.seconds for rate in rates}) < len(rates):
        raise ValueError(
            f"{where}: two rates are for the same time: {', '.join(map(str, rates))}. Keep the "
            "lower one."
        )
    return rates
