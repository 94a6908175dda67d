"""One counter, as a handle that is called like an object and compared like a number."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..client.counters import CounterStream
from ..client.increments import require_integer
from ..client.session import Session
from ..client.steps import Steps
from ..client.twins import twins
from ..exceptions import CounterUnavailable
from . import later
from .collection import DEFAULT_ALIAS, place_of, subject_of


class Counter:
    """A counter by name: ``Counter("page.home")``, or ``Counter("clicks", region, page)``.

    Dots in a single name separate tokens; of several parts each is a token, dots and all. Making
    one asks nobody. Every method has an async twin, with an ``a`` before its name.

    It can be used like the number it stands for: int(), str(), formats, comparisons and truth ask
    the server, each time. Equality is that of numbers too, so a counter cannot be hashed: use its
    ``name`` as a key. Under FAIL_OPEN, while the server is away, str() and formats are empty,
    comparisons are false as a NaN's are, and int() raises CounterUnavailable.

    Raises InvalidKey, a ValueError, for a name that is empty, has empty tokens or is too long.
    """

    __slots__ = ("__weakref__", "_subject", "alias", "name")

    def __init__(self, *name: str, alias: str = DEFAULT_ALIAS) -> None:
        self.name = name[0] if len(name) == 1 else name
        self.alias = alias
        self._subject = subject_of(self.name)

    def __repr__(self) -> str:
        alias = "" if self.alias == DEFAULT_ALIAS else f", alias={self.alias!r}"
        parts = self.name if isinstance(self.name, tuple) else (self.name,)
        return f"Counter({', '.join(map(repr, parts))}{alias})"

    @property
    def fail_open(self) -> bool:
        return place_of(self.alias).settings.fail_open

    @property
    def session(self) -> Session:
        """The process's connection to the servers, shared by all that have the same settings."""
        return place_of(self.alias).session

    @property
    def _stream(self) -> CounterStream:
        return place_of(self.alias).stream

    # Operations ------------------------------------------------------------------------------

    def _value(self) -> Steps[int]:
        """The total, 0 for a counter that was never changed. One round trip. FAIL_OPEN: None."""
        return self._learn((yield from self._stream.value(self._subject)))

    value, avalue = twins(_value, lambda: None)

    def _incr(self, n: int = 1) -> Steps[int]:
        """Add an integer of any size, exactly once; the new total. One round trip.

        Raises CounterUnavailable, with ``may_have_happened``, when that is not acknowledged within
        DEADLINE; TypeError for what is no integer. FAIL_OPEN: None.
        """
        return self._learn((yield from self._stream.incr(self._subject, n)))

    incr, aincr = twins(_incr, lambda n=1: None)

    def incr_later(self, n: int = 1) -> None:
        """Add in the background: see ``Counters.incr_later``."""
        later.backlog(self.alias).add(self._subject, n)

    def _decr(self, n: int = 1) -> Steps[int]:
        """Subtract an integer: see incr. FAIL_OPEN: None."""
        require_integer("n", n)
        return self._learn((yield from self._stream.incr(self._subject, -n)))

    decr, adecr = twins(_decr, lambda n=1: None)

    def _reset(self) -> Steps[None]:
        """Begin again from 0, as if never changed. FAIL_OPEN: None."""
        yield from self._stream.reset(self._subject)
        self._learn(0)

    reset, areset = twins(_reset, lambda: None)

    def _set(self, total: int) -> Steps[int]:
        """Bring the counter to a total by adding the difference; the new total.

        Not atomic: what others add between the reading and the adding is added to the total, too.
        Raises as incr does. FAIL_OPEN: None.
        """
        return self._learn((yield from self._stream.set(self._subject, total)))

    set, aset = twins(_set, lambda total: None)

    def _take(self, n: int = 1, floor: int = 0) -> Steps[bool]:
        """Take n away unless that leaves less than the floor; whether it did.

        For stock, seats and quotas: it never oversells. While another caller gives back what went
        below the floor, it may refuse what would be there a moment later. A call that is cancelled
        may have taken. Raises ValueError for an n below 1, otherwise as incr does. FAIL_OPEN:
        False.
        """
        return (yield from self._stream.take(self._subject, n, floor))

    take, atake = twins(_take, lambda n=1, floor=0: False)

    def _sources(self) -> Steps[dict[str, int]]:
        """What each stream of SOURCES contributes, by its name; nothing for a counter that is no
        sum. FAIL_OPEN: nothing."""
        return (yield from self._stream.sources(self._subject))

    sources, asources = twins(_sources, dict)

    # Templates call what they find, and would count.
    for _operation in (incr, aincr, decr, adecr, incr_later, reset, areset, set, aset, take, atake):
        _operation.alters_data = True  # type: ignore[union-attr]
    del _operation

    # A counter of a model instance keeps a total that was prefetched ----------------------------

    def _learn(self, total: int) -> int:
        return total

    def _known(self) -> int | None:
        """The total for where a number is expected. FAIL_OPEN: None."""
        return self.value()

    # Like a number ---------------------------------------------------------------------------

    def __int__(self) -> int:
        total = self._known()
        if total is None:
            raise CounterUnavailable(f"{self!r} cannot be read at the moment")
        return total

    __index__ = __int__  # float() uses it too, and with it the template filter pluralize

    def __str__(self) -> str:
        total = self._known()
        return "" if total is None else str(total)

    def __format__(self, spec: str) -> str:
        total = self._known()
        return "" if total is None else format(total, spec)

    def __bool__(self) -> bool:
        return bool(self._known())

    def _compare(self, other: object, holds: Callable[[Any, Any], bool]) -> Any:
        if isinstance(other, Counter):
            other = other._known()
        elif not isinstance(other, (int, float, Decimal, Fraction)):
            return NotImplemented
        total = self._known()
        return total is not None and other is not None and holds(total, other)

    def __eq__(self, other: object) -> Any:
        return self._compare(other, operator.eq)

    def __lt__(self, other: object) -> Any:
        return self._compare(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compare(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compare(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compare(other, operator.ge)

    __hash__ = None  # type: ignore[assignment]
