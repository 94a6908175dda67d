"""The counter of one model instance, which can keep a prefetched total."""

from __future__ import annotations

from typing import Literal, NoReturn, Protocol, overload

from asgiref.sync import sync_to_async
from django.db import models, transaction

from .. import keys
from ..client.counters.increments import require_integer
from ..client.protocol.steps import Steps
from .handle import Counter


class Field(Protocol):
    """What a counter needs of its field: a CounterField."""

    alias: str
    name: str

    def database_of(self, instance: models.Model) -> str:
        """Return the alias of the database that an object belongs to."""


class BoundCounter(Counter):
    """The counter of one object: ``article.views``.

    A total that prefetch_counters() or with_counters() has read stays with the object. int(),
    str(), formats, comparisons and bool() use it. The object's own changes, and what its value()
    reads, update it. refresh_from_db() removes it. Without such a total, the counter asks the
    server each time.
    """

    __slots__ = ("_field", "_instance")

    def __init__(self, field: Field, instance: models.Model, subject: str) -> None:
        """Bind a field's counter to an object, by the subject that its row has now."""
        self._field = field
        self._instance = instance
        self._subject = subject
        self.alias = field.alias

    @property
    def name(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the counter's name, a tuple of tokens."""
        # A property, since pages make many counters and hardly ever need their names.
        return keys.counter_parts(self._subject)

    def __reduce__(self) -> tuple[type[BoundCounter], tuple[object, ...]]:
        """Pickle the counter together with its object."""
        return type(self), (self._field, self._instance, self._subject)

    @overload
    def incr(self, n: int = 1, *, on_commit: Literal[False] = False) -> int | None: ...
    @overload
    def incr(self, n: int = 1, *, on_commit: Literal[True]) -> None: ...
    def incr(self, n: int = 1, *, on_commit: bool = False) -> int | None:
        """Add an integer of up to 10,000 digits, exactly once, and return the new total.

        One round trip. With ``on_commit``, the increment is sent after the commit of the current
        transaction, if there is one, and None is returned. A rollback drops it. If it fails after
        the commit, Django logs the error.

        Raises CounterUnavailable if the server does not acknowledge the increment within DEADLINE.
        Its attribute ``may_have_happened`` says whether the increment may have been applied.
        Raises TypeError if n is not an integer. FAIL_OPEN: return None.
        """
        if not on_commit:
            return super().incr(n)
        self._incr_on_commit(n)
        return None

    @overload
    async def aincr(self, n: int = 1, *, on_commit: Literal[False] = False) -> int | None: ...
    @overload
    async def aincr(self, n: int = 1, *, on_commit: Literal[True]) -> None: ...
    async def aincr(self, n: int = 1, *, on_commit: bool = False) -> int | None:
        """Async version of incr().

        ``on_commit`` waits for a transaction of the thread that Django's async methods run in.
        """
        if not on_commit:
            return await super().aincr(n)
        await sync_to_async(self._incr_on_commit)(n)
        return None

    def _incr_on_commit(self, n: int) -> None:
        require_integer("n", n)

        def incr_now() -> None:
            super(BoundCounter, self).incr(n)

        database = self._field.database_of(self._instance)
        transaction.on_commit(incr_now, using=database, robust=True)

    def _take(self, n: int = 1, floor: int = 0) -> Steps[bool]:
        taken = yield from super()._take(n, floor)
        if taken:
            self._adjust(-n)
        return taken

    def __iadd__(self, n: object) -> NoReturn:
        """Raise TypeError, which names incr()."""
        raise TypeError(
            f"A counter cannot be changed with +=. Use {self._field.name}.incr({n!r}) instead."
        )

    def __isub__(self, n: object) -> NoReturn:
        """Raise TypeError, which names decr()."""
        raise TypeError(
            f"A counter cannot be changed with -=. Use {self._field.name}.decr({n!r}) instead."
        )

    def incr_later(self, n: int = 1) -> None:
        """Add an integer in the background. See Counters.incr_later()."""
        super().incr_later(n)
        self._adjust(n)

    for _operation in (incr, aincr, incr_later):
        _operation.alters_data = True  # type: ignore[union-attr]  # templates must not call it
    del _operation

    # The prefetched total --------------------------------------------------------------------

    def keep(self, total: int | None) -> None:
        """Keep a total with the object until it is refreshed. None stands for unknown."""
        # Kept where Django keeps prefetched objects: refresh_from_db() removes it, and so do
        # REST framework's views after an update. The subject tells whether the object has got
        # another primary key since.
        vars(self._instance).setdefault("_prefetched_objects_cache", {})[self._field.name] = (
            self._subject,
            total,
        )

    def _kept(self) -> tuple[int | None] | None:
        cache = vars(self._instance).get("_prefetched_objects_cache", {})
        subject, total = cache.get(self._field.name, (None, None))
        return (total,) if subject == self._subject else None

    def _learn(self, total: int) -> int:
        if self._kept() is not None:
            self.keep(total)
        return total

    def _adjust(self, change: int) -> None:
        kept = self._kept()
        if kept is not None and kept[0] is not None:
            self.keep(kept[0] + change)

    def _known(self) -> int | None:
        kept = self._kept()
        return self.value() if kept is None else kept[0]
