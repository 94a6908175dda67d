"""One counter: an object with operations, which can be used like a number."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..client.counters.digits import text_of
from ..client.counters.increments import require_integer
from ..client.counters.stream import CounterStream
from ..client.operations import Operations
from ..client.protocol.steps import Steps
from ..client.transport.session import Session
from ..exceptions import CounterUnavailable
from . import write_behind
from .arithmetic import NoArithmetic
from .collection import DEFAULT_ALIAS, context_of, subject_of


class Counter(NoArithmetic, Operations):
    """A counter by name: ``Counter("page.home")``, or ``Counter("clicks", region, page)``.

    In a single name, dots separate tokens. With several parts, each part is one token, even if it
    contains dots. The constructor does not ask the server. Every method that does has an async
    version, with an ``a`` before its name.

    A counter can be used like a number: int(), str(), formats, comparisons and bool() read its
    total from the server each time. Since it is equal to the number, it cannot be hashed: use its
    ``name`` as a key. Under FAIL_OPEN, while the server is unavailable, str() and formats are
    empty, comparisons are False, and int() raises CounterUnavailable.

    Raises InvalidKey, a ValueError, if the name is empty, has an empty token or is too long.
    """

    __slots__ = ("__weakref__", "_subject", "alias", "name")

    def __init__(self, *name: str, alias: str = DEFAULT_ALIAS) -> None:
        """Address a counter by its name, in an alias of NATS_COUNTERS."""
        self.name = name[0] if len(name) == 1 else name
        self.alias = alias
        self._subject = subject_of(self.name)

    def __repr__(self) -> str:
        """Return the call that makes this counter. The server is not asked."""
        alias = "" if self.alias == DEFAULT_ALIAS else f", alias={self.alias!r}"
        parts = self.name if isinstance(self.name, tuple) else (self.name,)
        return f"Counter({', '.join(map(repr, parts))}{alias})"

    @property
    def fail_open(self) -> bool:
        """Return the alias's option FAIL_OPEN."""
        return context_of(self.alias).settings.fail_open

    @property
    def session(self) -> Session:
        """Return the connection, which aliases with the same connection options share."""
        return context_of(self.alias).session

    @property
    def _stream(self) -> CounterStream:
        return context_of(self.alias).stream

    # Operations ------------------------------------------------------------------------------

    def value(self) -> int | None:
        """Return the total, which is 0 if the counter was never changed.

        One round trip. Raises CounterUnavailable if the server is unavailable, and Unreadable if
        what is stored is not a total. FAIL_OPEN: return None.
        """
        return self._run(self._value(), away=None)

    async def avalue(self) -> int | None:
        """Async version of value()."""
        return await self._arun(self._value(), away=None)

    def _value(self) -> Steps[int]:
        return self._learn((yield from self._stream.value(self._subject)))

    def incr(self, n: int = 1) -> int | None:
        """Add an integer of up to 10,000 digits, exactly once, and return the new total.

        One round trip. Raises CounterUnavailable if the server does not acknowledge the increment
        within DEADLINE. Its attribute ``may_have_happened`` says whether the increment may have
        been applied. Raises TypeError if n is not an integer. FAIL_OPEN: return None.
        """
        return self._run(self._incr(n), away=None)

    async def aincr(self, n: int = 1) -> int | None:
        """Async version of incr()."""
        return await self._arun(self._incr(n), away=None)

    def _incr(self, n: int = 1) -> Steps[int]:
        return self._learn((yield from self._stream.incr(self._subject, n)))

    def incr_later(self, n: int = 1) -> None:
        """Add an integer in the background. See Counters.incr_later()."""
        write_behind.backlog(self.alias).add(self._subject, n)

    def decr(self, n: int = 1) -> int | None:
        """Subtract an integer and return the new total.

        See incr() for what it raises. FAIL_OPEN: return None.
        """
        return self._run(self._decr(n), away=None)

    async def adecr(self, n: int = 1) -> int | None:
        """Async version of decr()."""
        return await self._arun(self._decr(n), away=None)

    def _decr(self, n: int = 1) -> Steps[int]:
        require_integer("n", n)
        return self._learn((yield from self._stream.incr(self._subject, -n)))

    def reset(self) -> None:
        """Set the counter back to 0, as if it was never changed.

        Raises CounterUnavailable if the server is unavailable. FAIL_OPEN: the counter may be
        unchanged.
        """
        return self._run(self._reset(), away=None)

    async def areset(self) -> None:
        """Async version of reset()."""
        return await self._arun(self._reset(), away=None)

    def _reset(self) -> Steps[None]:
        yield from self._stream.reset(self._subject)
        self._learn(0)

    def set(self, total: int) -> int | None:
        """Bring the counter to a total by adding the difference, and return the new total.

        Not atomic: what others add after this has read the counter is added to the given total,
        too. At most two round trips. It fails as value() does if it cannot read, and otherwise as
        incr() does. FAIL_OPEN: return None.
        """
        return self._run(self._set(total), away=None)

    async def aset(self, total: int) -> int | None:
        """Async version of set()."""
        return await self._arun(self._set(total), away=None)

    def _set(self, total: int) -> Steps[int]:
        return self._learn((yield from self._stream.set(self._subject, total)))

    def take(self, n: int = 1, floor: int = 0) -> bool:
        """Subtract n unless less than the floor would remain. Return True if it was subtracted.

        For stock, seats and quotas, which are never oversold. The call reads the total, subtracts
        n, and gives n back if too little remains. While it gives back, another call may be refused
        although enough remains a moment later. A cancelled call may have subtracted n. Raises
        ValueError if n is below 1. It fails as value() does if it cannot read, and otherwise as
        incr() does. FAIL_OPEN: return False.
        """
        return self._run(self._take(n, floor), away=False)

    async def atake(self, n: int = 1, floor: int = 0) -> bool:
        """Async version of take()."""
        return await self._arun(self._take(n, floor), away=False)

    def _take(self, n: int = 1, floor: int = 0) -> Steps[bool]:
        return (yield from self._stream.take(self._subject, n, floor))

    def sources(self) -> dict[str, int]:
        """Return what each stream of SOURCES contributes, by the stream's name.

        The dict is empty if the alias has no SOURCES. FAIL_OPEN: return an empty dict.
        """
        return self._run(self._sources(), away={})

    async def asources(self) -> dict[str, int]:
        """Async version of sources()."""
        return await self._arun(self._sources(), away={})

    def _sources(self) -> Steps[dict[str, int]]:
        return (yield from self._stream.sources(self._subject))

    # Templates call every callable they find, and must not count with that.
    for _operation in (incr, aincr, decr, adecr, incr_later, reset, areset, set, aset, take, atake):
        _operation.alters_data = True  # type: ignore[union-attr]
    del _operation

    # For BoundCounter, which keeps a prefetched total -------------------------------------------

    def _learn(self, total: int) -> int:
        """Take note of a total that the server has returned, and return it."""
        return total

    def _known(self) -> int | None:
        """Return the total for use as a number. FAIL_OPEN: return None."""
        return self.value()

    # Like a number ---------------------------------------------------------------------------

    def __int__(self) -> int:
        """Return the total. Raises CounterUnavailable if it cannot be read, FAIL_OPEN or not."""
        total = self._known()
        if total is None:
            raise CounterUnavailable(
                f"{self!r} cannot be read at the moment. With FAIL_OPEN, its value() returns None "
                "instead of this error."
            )
        return total

    def __index__(self) -> int:
        """Return the total as __int__() does."""
        # float() calls it, and the template filter pluralize calls float().
        return int(self)

    def tolist(self) -> int | None:
        """Return the total for JSON, as the numbers of NumPy do. FAIL_OPEN: return None.

        Django REST framework's JSON calls it.
        """
        return self._known()

    def __str__(self) -> str:
        """Return the total in decimal digits. FAIL_OPEN: return an empty string."""
        total = self._known()
        return "" if total is None else text_of(total)

    def __format__(self, spec: str) -> str:
        """Return the total in the format of an integer. FAIL_OPEN: return an empty string."""
        total = self._known()
        return "" if total is None else text_of(total, spec)

    def __bool__(self) -> bool:
        """Return whether the total is not 0. FAIL_OPEN: return False."""
        return bool(self._known())

    def _compare(self, other: object, holds: Callable[[Any, Any], bool]) -> Any:
        """Compare the total with a number or another counter. FAIL_OPEN: return False."""
        if isinstance(other, Counter):
            other = other._known()
        elif not isinstance(other, (int, float, Decimal, Fraction)):
            return NotImplemented
        total = self._known()
        return total is not None and other is not None and holds(total, other)

    def __eq__(self, other: object) -> Any:
        """Return whether the total equals a number or the total of another counter."""
        return self._compare(other, operator.eq)

    def __lt__(self, other: object) -> Any:
        """Return whether the total is less than a number or another total."""
        return self._compare(other, operator.lt)

    def __le__(self, other: object) -> Any:
        """Return whether the total is at most a number or another total."""
        return self._compare(other, operator.le)

    def __gt__(self, other: object) -> Any:
        """Return whether the total is greater than a number or another total."""
        return self._compare(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        """Return whether the total is at least a number or another total."""
        return self._compare(other, operator.ge)

    __hash__ = None  # type: ignore[assignment]
