"""Quotas: how much of something a tenant may use in a period of the calendar."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, tzinfo
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from django.utils.timezone import get_default_timezone

from ..client import process
from ..client.counters.stream import CounterStream
from ..client.operations import Operations
from ..client.protocol.steps import Call, Steps
from ..client.transport.session import Session
from ..conf.limit_streams import quota_stream
from ..conf.limits import limit_settings
from ..counters.collection import AliasContext, context_of
from ..exceptions import CounterUnavailable
from ..keys import token
from . import refunds
from .keys import key_text, key_token
from .memory import Memory
from .periods import SECONDS, Period, period_at
from .receipts import Receipt, new_receipt, read_receipt

LimitSpec: TypeAlias = "int | Callable[[Any], Any] | None"
"""A number, a function of the tenant that returns one, or None for no limit."""

MOST = 10**15
"""The largest number that can be used at once."""
_MAX_NAME_BYTES = 64


class Usage:
    """How much of a quota is used. It is true if the use was allowed.

    It is not changed once it is made.
    """

    __slots__ = ("_receipt", "allowed", "limit", "remaining", "reset_at", "used")

    def __init__(
        self,
        allowed: bool,
        used: int,
        limit: int | None,
        reset_at: datetime,
        receipt: Receipt | None = None,
    ) -> None:
        self.allowed = allowed
        """Whether the use was allowed. As returned by usage(), whether a use of 1 would be."""
        self.used = used
        """What is used of the period, with this use if it was allowed."""
        self.limit = limit
        """What may be used, or None without a limit."""
        self.remaining = None if limit is None else max(0, limit - used)
        """What may still be used, or None without a limit."""
        self.reset_at = reset_at
        """When the next period begins, in the quota's time zone."""
        self._receipt = receipt

    @property
    def id(self) -> str:
        """The text by which this use can be refunded; empty if it was refused.

        It has at most 200 characters, or 310 if keys are readable. It is signed, so that it cannot
        be forged.
        """
        return "" if self._receipt is None else self._receipt.id()

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        """Return the numbers, and not the tenant."""
        what = "allowed" if self.allowed else "refused"
        limit = "no limit" if self.limit is None else f"limit {self.limit}"
        return f"<Usage {what}: {self.used} used, {limit}>"


class Quota(Operations):
    """What each tenant may use in a period: ``Quota("exports", limit=100, per="month")``.

    Uses are counted on the server, exactly once, for all processes together. Never more is used
    than the limit. Every method has an async version, with an ``a`` before its name. A tenant is a
    saved instance of a model, a string, an integer or a UUID.

    ``limit`` is a number, None for no limit, or a function of the tenant that returns one of these;
    with the async methods, also a coroutine function. It is called at each use, so that a limit may
    change within a period. ``per`` is "hour", "day", "week" (from Monday), "month" or "year", by
    the calendar of ``tz``: the name of a time zone, a tzinfo, or None for the setting TIME_ZONE,
    which is not the visitor's time zone. ``alias`` names an entry of NATS_COUNTERS. With
    ``readable``, the subjects of counters hold tenants as they are, instead of a keyed hash; the
    setting READABLE_KEYS is the default. ENABLED, DRY_RUN and FAIL_OPEN are for limits, and change
    nothing here.

    If the server is unavailable, methods raise CounterUnavailable. Its attribute
    ``may_have_happened`` says whether something may have been used, or given back.

    Raises ValueError or TypeError if an argument is not valid.
    """

    def __init__(
        self,
        name: str,
        *,
        limit: LimitSpec,
        per: str,
        tz: str | tzinfo | None = None,
        alias: str | None = None,
        readable: bool | None = None,
    ) -> None:
        """Declare a quota. Settings are read, and the server is asked, at the first use."""
        if not isinstance(name, str) or not name or len(token(name)) > _MAX_NAME_BYTES:
            raise ValueError(
                f"A quota's name must be a string of 1 to {_MAX_NAME_BYTES} bytes, not {name!r}"
            )
        self.name = name
        if per not in tuple(SECONDS):
            raise ValueError(f"{self!r}: per is {per!r}; it must be one of {', '.join(SECONDS)}")
        self.per = per
        self._limit = limit if callable(limit) else self._checked(limit)
        self._tz = self._time_zone(tz)
        self._alias = alias
        self._readable = readable
        self._head = token(name)
        self._known: tuple[AliasContext, CounterStream] | None = None
        self._period: tuple[tzinfo, Period] | None = None
        self._refused: Memory[bool] = Memory()
        """Counters of which a use was refused a moment ago."""

    def __repr__(self) -> str:
        return f"Quota({self.name!r})"

    @property
    def alias(self) -> str:
        """Return the alias of NATS_COUNTERS where uses are counted."""
        return self._alias or limit_settings().alias

    @property
    def session(self) -> Session:
        """Return the connection, which aliases with the same connection options share."""
        return context_of(self.alias).session

    @property
    def fail_open(self) -> bool:
        """Return False: nothing is used that cannot be counted."""
        return False

    # Operations ------------------------------------------------------------------------------

    def use(self, tenant: Any, n: int = 1) -> Usage:
        """Use n if that much is left, and return what is used then.

        One round trip if it is allowed. A use that exceeds the limit is counted, and then given
        back: two round trips. Meanwhile, another use may be refused that has room a moment later.
        For a second after a refusal in this process, a use of the same tenant is counted only if a
        read shows that there is room.

        If this raises CounterUnavailable with ``may_have_happened``, or the call is cancelled, n
        may stay used. Raises TypeError if n is not an integer, and ValueError if it is below 1.
        """
        return self._run(self._use(tenant, n))

    async def ause(self, tenant: Any, n: int = 1) -> Usage:
        """Async version of use()."""
        return await self._arun(self._use(tenant, n))

    def _use(self, tenant: Any, n: int = 1) -> Steps[Usage]:
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"{self!r}: n must be an integer, not {n!r}")
        if not 1 <= n <= MOST:
            raise ValueError(f"{self!r}: n must be from 1 to {MOST:,}, not {n}")
        key = self._key(tenant)
        limit = yield from self._limit_of(tenant)
        stream = self._stream
        period, end = yield from self._current()
        counter = self._counter(key, period)
        # A quota that is used up is read, and not written to at every try.
        if limit is not None and (n > limit or self._refused.find(counter)):
            with suppress(CounterUnavailable):  # the increment waits longer for an answer
                used = yield from stream.value(counter)
                if used + n > limit:
                    self._refused.note(counter, True)
                    return Usage(False, used, limit, end)
            self._refused.forget(counter)
        sequence, total = yield from stream.increments.count(counter, n)
        if limit is None or total <= limit:
            receipt = new_receipt(self._head, key, period, n, sequence)
            return Usage(True, total, limit, end, receipt)
        self._refused.note(counter, True)
        try:
            yield from stream.give_back(counter, n)
        except CounterUnavailable as error:
            raise CounterUnavailable(
                f"{self!r} has refused a use of {n}, which may stay counted: {error}",
                may_have_happened=True,
            ) from error
        return Usage(False, total - n, limit, end)

    def usage(self, tenant: Any) -> Usage:
        """Return what a tenant has used, without using anything. One round trip."""
        return self._run(self._usage(tenant))

    async def ausage(self, tenant: Any) -> Usage:
        """Async version of usage()."""
        return await self._arun(self._usage(tenant))

    def _usage(self, tenant: Any) -> Steps[Usage]:
        key = self._key(tenant)
        limit = yield from self._limit_of(tenant)
        period, end = yield from self._current()
        used = yield from self._stream.value(self._counter(key, period))
        return Usage(limit is None or used < limit, used, limit, end)

    def remaining(self, tenant: Any) -> int | None:
        """Return how much a tenant may still use, or None without a limit. One round trip."""
        return self._run(self._remaining(tenant))

    async def aremaining(self, tenant: Any) -> int | None:
        """Async version of remaining()."""
        return await self._arun(self._remaining(tenant))

    def _remaining(self, tenant: Any) -> Steps[int | None]:
        return (yield from self._usage(tenant)).remaining

    def refund(self, id: str) -> bool:
        """Give back what was used, by the ``id`` of the use. Return True if this call has done so.

        Return False if that use was refunded before, if the tenant was reset since, or if the
        period has ended. Three round trips.

        A use is never refunded twice, whatever fails. If this process ends or the call is cancelled
        in the middle of it, or if it raises CounterUnavailable with ``may_have_happened``, the use
        may stay counted, and later calls return False. After CounterUnavailable without it, nothing
        was done, and the call can be repeated.

        Raises ValueError if the id is not one that this quota has given.
        """
        return self._run(self._refund(id))

    async def arefund(self, id: str) -> bool:
        """Async version of refund()."""
        return await self._arun(self._refund(id))

    def _refund(self, id: str) -> Steps[bool]:
        _, key, period, n, sequence, nonce = read_receipt(id, self._head, repr(self))
        current, _ = yield from self._current()
        if period != current:
            return False
        counter = self._counter(key, period)
        return (yield from refunds.refund(self._stream, counter, n, sequence, nonce))

    def reset(self, tenant: Any) -> None:
        """Let a tenant begin the period again, with nothing used.

        Uses from before it can no longer be refunded. A use or a refund at the same moment may be
        dropped, or may count in addition.
        """
        return self._run(self._reset(tenant))

    async def areset(self, tenant: Any) -> None:
        """Async version of reset()."""
        return await self._arun(self._reset(tenant))

    def _reset(self, tenant: Any) -> Steps[None]:
        key = self._key(tenant)
        period, _ = yield from self._current()
        yield from refunds.reset(self._stream, self._counter(key, period))

    def reset_at(self) -> datetime:
        """Return when the next period begins, in the quota's time zone.

        No round trip, but the process's first call asks the server for its time.
        """
        return self._run(self._reset_at())

    async def areset_at(self) -> datetime:
        """Async version of reset_at()."""
        return await self._arun(self._reset_at())

    def _reset_at(self) -> Steps[datetime]:
        _, end = yield from self._current()
        return end

    # Arguments -------------------------------------------------------------------------------

    def _checked(self, limit: object) -> int | None:
        """Return a limit. Raises TypeError or ValueError if it is not one."""
        if limit is None:
            return None
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(
                f"{self!r}: the limit must be an integer, a function that returns one, or None for "
                f"no limit, not {limit!r}"
            )
        if limit < 0:
            raise ValueError(f"{self!r}: the limit must not be negative, but is {limit}")
        return int(limit)

    def _limit_of(self, tenant: Any) -> Steps[int | None]:
        if not callable(self._limit):
            return self._limit
        return self._checked((yield Call(self._limit, (tenant,))))

    def _time_zone(self, tz: object) -> tzinfo | None:
        if isinstance(tz, str):
            try:
                return ZoneInfo(tz)
            except (KeyError, ValueError, OSError):
                raise ValueError(f"{self!r}: there is no time zone {tz!r}") from None
        # Those of pytz do not know their offset unless they are localized.
        if hasattr(tz, "localize") or not isinstance(tz, (tzinfo, type(None))):
            raise TypeError(
                f"{self!r}: tz must be the name of a time zone, a tzinfo such as ZoneInfo, or None "
                f"for the setting TIME_ZONE, not {tz!r}"
            )
        return tz

    def _key(self, tenant: object) -> str:
        readable = limit_settings().readable_keys if self._readable is None else self._readable
        return key_token(key_text(tenant, repr(self)), readable=readable)

    # The server ------------------------------------------------------------------------------

    @property
    def _stream(self) -> CounterStream:
        context = context_of(self.alias)
        known = self._known
        if known is None or known[0] is not context:
            config = quota_stream(context.settings, SECONDS[self.per])
            stream = process.counter_stream(context.settings.connection, config)
            known = self._known = context, stream
        return known[1]

    def _current(self) -> Steps[tuple[str, datetime]]:
        """Return the id of the current period, by the server's clock, and when it ends."""
        now = yield from self._stream.server_time()
        tz = get_default_timezone() if self._tz is None else self._tz
        known = self._period
        if known is None or known[0] is not tz or not known[1].start <= now < known[1].end:
            known = self._period = tz, period_at(now, self.per, tz)
        _, period = known
        return period.id, datetime.fromtimestamp(period.end, tz)

    def _counter(self, key: str, period: str) -> str:
        return f"{self._head}.{key}.{period}"
