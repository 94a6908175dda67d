"""Rate limits: how many hits of one key are let through in how long."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from ..client import process
from ..client.counters import hits
from ..client.counters.stream import CounterStream
from ..client.operations import AWAY, Operations
from ..client.protocol.steps import Call, Steps
from ..client.transport.session import Session
from ..conf.limit_streams import limit_stream
from ..conf.limits import LimitSettings, limit_settings
from ..counters.collection import AliasContext, context_of
from ..exceptions import NatsError
from ..keys import token
from .algorithms import ALGORITHMS, SLIDING, Usage
from .arguments import is_seconds, require_choice
from .decision import Decision
from .declared import declare
from .keys import key_text, key_token
from .outage_log import OutageLog
from .rates import MOST, Rate, parse_rate
from .refusals import Refusals, refusal
from .tally import Counted, RateOnStream, Tally

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger("django_nats")

RateSpec: TypeAlias = "str | tuple[int, Any] | Rate | Callable[..., Any] | None"
"""A rate, or a function of the limit's name and the request that returns one."""

MAX_NAME_BYTES = 128
_START_S = 10.0
"""How long a hit waits for an embedded server at least, since the hit may have to start it."""


class Limit(Operations):
    """A limit of one or more rates: ``Limit("api", "100/m", "2000/h")``.

    Hits are counted on the server, for all processes together, and never more of them are let
    through than a rate says within one of its windows: see docs/reference/limits.md. All rates are
    asked in one round trip. Every method has an async version, with an ``a`` before its name.

    A rate is text such as "5/s", "100/15m" or "5000/d", a tuple of a count and a number of seconds
    or a timedelta, or None for no limit. It may also be a function of the limit's name and the
    request that returns one of these; with the async methods, a coroutine function.

    ``algorithm`` is "sliding" or "fixed". ``alias`` names an entry of NATS_COUNTERS. A hit waits
    for the server for at most ``timeout`` seconds, by default REQUEST_TIMEOUT of the alias. After
    that it is let through if ``fail_open`` is true. With ``dry_run``, every hit is let through, and
    those that would be refused are logged. With ``readable``, the subjects of counters hold keys as
    they are, instead of a keyed hash. The options FAIL_OPEN, DRY_RUN and READABLE_KEYS of
    NATS_LIMITS are the defaults of these.

    Raises ValueError or TypeError if an argument is not valid.
    """

    def __init__(
        self,
        name: str,
        *rates: RateSpec,
        algorithm: str = SLIDING,
        alias: str | None = None,
        fail_open: bool | None = None,
        timeout: float | None = None,
        dry_run: bool | None = None,
        readable: bool | None = None,
    ) -> None:
        """Declare a limit. Settings are read, and the server is asked, at the first hit."""
        if not isinstance(name, str) or not name or len(token(name)) > MAX_NAME_BYTES:
            raise ValueError(
                f"A limit's name must be a string of 1 to {MAX_NAME_BYTES} bytes, not {name!r}"
            )
        self.name = name
        where = repr(self)
        if not rates:
            raise ValueError(f'{where} has no rate. Write one, such as "100/m".')
        if algorithm not in ALGORITHMS:
            raise ValueError(
                f"{where}: algorithm must be {' or '.join(map(repr, ALGORITHMS))}, "
                f"not {algorithm!r}"
            )
        if timeout is not None and not is_seconds(timeout):
            raise ValueError(
                f"{where}: timeout must be a number of seconds above 0, not {timeout!r}"
            )
        for option, value in (
            ("fail_open", fail_open),
            ("dry_run", dry_run),
            ("readable", readable),
        ):
            require_choice(value, option, where)
        self.algorithm = algorithm
        self.timeout = timeout
        self._alias = alias
        self._own_fail_open = fail_open
        self._dry_run = dry_run
        self._readable = readable
        self._rates = [each if callable(each) else parse_rate(each, where) for each in rates]
        self._fixed_rates = None if any(map(callable, rates)) else self._checked(self._rates)
        self._tally = Tally(name, slides=algorithm == SLIDING)
        self._refusals = Refusals()
        self._settings: tuple[AliasContext, LimitSettings] | None = None
        self._streams: dict[int, CounterStream] = {}
        """Streams by the length of the windows that they count, by these settings."""
        self._outage = OutageLog(where)
        declare(self)

    def __repr__(self) -> str:
        return f"Limit({self.name!r})"

    @property
    def alias(self) -> str:
        """Return the alias of NATS_COUNTERS where hits are counted."""
        return self._alias or limit_settings().alias

    @property
    def rates(self) -> Sequence[RateSpec]:
        """Return the rates: a Rate, None for no limit, or the function that returns it."""
        return self._rates

    @property
    def session(self) -> Session:
        """Return the connection, which aliases with the same connection options share."""
        return context_of(self.alias).session

    @property
    def fail_open(self) -> bool:
        """Return whether hits are let through while the server does not answer."""
        own = self._own_fail_open
        return limit_settings().fail_open if own is None else own

    @property
    def dry_run(self) -> bool:
        """Return whether hits are let through that would be refused."""
        return limit_settings().dry_run if self._dry_run is None else self._dry_run

    def hit(self, key: Any = "", cost: int = 1, *, request: HttpRequest | None = None) -> Decision:
        """Count a hit of a key if all rates have room for its cost, and return the decision.

        One round trip; none if a hit of that key was refused in the last second, and there is still
        no room for the cost. A refused hit is not counted: its cost is given back. A cost above the
        count of a rate is not even counted first. ``key`` is a string, an integer, a UUID, or a
        saved instance of a model. ``request`` is passed to rates that are functions.

        If the server does not answer in time, the decision's ``error`` says why, and FAIL_OPEN
        decides. A hit that gets no answer may stay counted, also if its task is cancelled.

        Raises TypeError or ValueError for another key, and for a cost that is not an integer from 1
        to 10**15 - 1, and CounterMismatch if the stream cannot be used.
        """
        decision = self._decided(key, cost)
        return self._run(self._hit(key, cost, request)) if decision is None else decision

    async def ahit(
        self, key: Any = "", cost: int = 1, *, request: HttpRequest | None = None
    ) -> Decision:
        """Async version of hit()."""
        decision = self._decided(key, cost)
        return await self._arun(self._hit(key, cost, request)) if decision is None else decision

    def _decided(self, key: Any, cost: int) -> Decision | None:
        """Return the decision, or None if steps are needed: to ask the server, for one."""
        if not limit_settings().enabled:
            return Decision(True)
        rates = self._fixed_rates
        # Only what is certainly valid: _hit() checks everything else.
        if rates is None or type(key) not in (str, int):
            return None
        if type(cost) is not int or not 0 < cost <= MOST:
            return None
        found = self._refusals.find(str(key), cost, rates)
        if found is None:
            found = _without_counting(rates)
        return None if found is None else self._in_dry_run(found)

    def _hit(
        self, key: Any, cost: int, request: HttpRequest | None, now: float | None = None
    ) -> Steps[Decision]:
        """Count a hit. ``now`` is in seconds since 1970, and replaces the server's clock."""
        text = key_text(key, repr(self))
        if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= MOST:
            raise ValueError(
                f"{self!r}: the cost must be an integer from 1 to {MOST:,}, not {cost!r}"
            )
        rates = (yield from self._rates_of(request)) if limit_settings().enabled else ()
        found = _without_counting(rates)
        if found is None and now is None:
            found = self._refusals.find(text, cost, rates)
        if found is None:
            found = yield from self._ask(text, cost, rates, now)
        return self._in_dry_run(found)

    def _ask(
        self, key: str, cost: int, rates: Sequence[Rate], now: float | None
    ) -> Steps[Decision]:
        timeout, places = self._places(rates)
        try:
            if any(cost > rate.count for rate in rates):
                # It is never let through, and must not keep others out until it is given back.
                usages = yield from self._tally.read(self._token(key), places, timeout, now)
                counted = Counted([], usages, [])
            else:
                counted = yield from self._tally.add(self._token(key), places, cost, timeout, now)
        except AWAY as error:
            return self._away(error)
        lasting = next((each for each in counted.errors if not isinstance(each, AWAY)), None)
        if lasting is not None:
            hits.give_back(counted.windows, cost)
            raise lasting
        # One rate that refuses suffices, although others do not answer.
        refusing = [each for each in counted.usages if not each.has_room(cost)]
        if refusing:
            hits.give_back(counted.windows, cost)
            decision = refusal(refusing, cost)
            self._refusals.note(key, cost, rates, refusing, decision)
            return decision
        if counted.errors:
            decision = self._away(counted.errors[0])
            if not decision.allowed:
                hits.give_back(counted.windows, cost)
            return decision
        self._outage.end()
        return _least([each._replace(current=each.current + cost) for each in counted.usages])

    def peek(self, key: Any = "", *, request: HttpRequest | None = None) -> Decision:
        """Return the decision that a hit of cost 1 would get, without counting one.

        One round trip for each stream: one for rates of up to a minute, an hour, a day, and longer.
        It fails and raises as hit() does. A dry run does not change what it returns.
        """
        if not limit_settings().enabled:
            return Decision(True)
        return self._run(self._peek(key, request))

    async def apeek(self, key: Any = "", *, request: HttpRequest | None = None) -> Decision:
        """Async version of peek()."""
        if not limit_settings().enabled:
            return Decision(True)
        return await self._arun(self._peek(key, request))

    def _peek(
        self, key: Any, request: HttpRequest | None, now: float | None = None
    ) -> Steps[Decision]:
        text = key_text(key, repr(self))
        rates = (yield from self._rates_of(request)) if limit_settings().enabled else ()
        found = _without_counting(rates)
        if found is not None:
            return found
        timeout, places = self._places(rates)
        try:
            usages = yield from self._tally.read(self._token(text), places, timeout, now)
        except AWAY as error:
            return self._away(error)
        refusing = [each for each in usages if not each.has_room(1)]
        return refusal(refusing, 1) if refusing else _least(usages)

    def reset(self, key: Any = "", *, request: HttpRequest | None = None) -> None:
        """Forget the hits of a key.

        Other processes may refuse it for one more second. A hit at the same moment may be
        forgotten, too. If it is refused, its cost may be given back after it was forgotten, so that
        the window lets that cost through in addition. Raises Unavailable if the server does not
        answer, whatever FAIL_OPEN says. Does nothing if limits are off.
        """
        if limit_settings().enabled:
            self._run(self._reset(key, request))

    async def areset(self, key: Any = "", *, request: HttpRequest | None = None) -> None:
        """Async version of reset()."""
        if limit_settings().enabled:
            await self._arun(self._reset(key, request))

    def _reset(
        self, key: Any, request: HttpRequest | None, now: float | None = None
    ) -> Steps[None]:
        text = key_text(key, repr(self))
        rates = yield from self._rates_of(request)
        _, places = self._places(rates)
        yield from self._tally.drop(self._token(text), places, now)
        self._refusals.forget(text)

    # Templates call every callable they find, and must not count with that.
    for _operation in (hit, ahit, reset, areset):
        _operation.alters_data = True  # type: ignore[union-attr]
    del _operation

    # Rates and windows -----------------------------------------------------------------------

    def _rates_of(self, request: HttpRequest | None) -> Steps[Sequence[Rate]]:
        """Return the rates that apply."""
        if self._fixed_rates is not None:
            return self._fixed_rates
        rates: list[Any] = []
        for each in self._rates:
            if callable(each):
                each = parse_rate((yield Call(each, (self.name, request))), repr(self))
            rates.append(each)
        return self._checked(rates)

    def _checked(self, rates: Sequence[Any]) -> Sequence[Rate]:
        found = [each for each in rates if each is not None]
        if len({each.seconds for each in found}) < len(found):
            raise ValueError(
                f"{self!r} has two rates for the same time: {', '.join(map(str, found))}. Keep the "
                "lower one."
            )
        return found

    def _places(self, rates: Sequence[Rate]) -> tuple[float, list[RateOnStream]]:
        """Return the seconds for which a hit may wait, and where each rate is counted."""
        context, limits = context_of(self.alias), limit_settings()
        if (
            self._settings is None
            or self._settings[0] is not context
            or self._settings[1] is not limits
        ):
            self._settings = context, limits
            self._streams = {}
            self._outage.forget()
        settings = context.settings
        places = []
        for rate in rates:
            stream = self._streams.get(rate.seconds)
            if stream is None:
                config = limit_stream(settings, rate.seconds, self.timeout)
                stream = process.counter_stream(settings.connection, config)
                self._streams[rate.seconds] = stream
            places.append(RateOnStream(rate, stream))
        timeout = self.timeout or settings.stream.request_timeout
        if settings.connection.embedded is not None:
            timeout = max(timeout, _START_S)
        return timeout, places

    def _token(self, key: str) -> str:
        readable = limit_settings().readable_keys if self._readable is None else self._readable
        return key_token(key, readable=readable)

    def _away(self, error: NatsError) -> Decision:
        """Return the decision for a hit that could not be counted."""
        fail_open = self.fail_open
        self._outage.begin(error, allowed=fail_open or self.dry_run)
        return Decision(fail_open, error=error)

    def _in_dry_run(self, decision: Decision) -> Decision:
        if decision.allowed or not self.dry_run:
            return decision
        logger.info("%r would refuse a hit (dry run): %r", self, decision)
        return Decision(
            True,
            decision.rate,
            decision.remaining,
            decision.reset_after,
            decision.retry_after,
            error=decision.error,
            dry_run=True,
        )


def _without_counting(rates: Sequence[Rate]) -> Decision | None:
    """Return the decision that needs no count: if there is no rate, or one lets nothing through."""
    if not rates:
        return Decision(True)
    never = next((each for each in rates if not each.count), None)
    return None if never is None else Decision(False, never, 0, 0.0, inf)


def _least(usages: Sequence[Usage]) -> Decision:
    """Return the decision for a hit that every rate lets through."""
    left = [each.remaining for each in usages]
    least = min(left)
    usage = usages[left.index(least)]
    return Decision(True, usage.rate, least, usage.reset_after)
