"""Read the counters of many objects in one round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice, starmap
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import models

from ..client.protocol.steps import Steps
from ..client.streams.messages import MAX_BATCH
from .bound import BoundCounter
from .collection import Counters
from .fields import counter_fields
from .nameless import NamelessCounter

if TYPE_CHECKING:
    from typing_extensions import Self

M = TypeVar("M", bound=models.Model)

Q = TypeVar("Q", bound="CounterQuerySet[Any]")

MYPY = False  # mypy treats this name as true

if TYPE_CHECKING and not MYPY:

    class CounterManager(models.Manager[M], Generic[M, Q]):
        """The type of ``CounterQuerySet["Article"].as_manager()``, for pyright and editors.

        Django copies the methods of a queryset to such a manager at runtime. Only mypy's plugin for
        Django knows that. For other type checkers, the attribute of the model is a queryset: it has
        all these methods, those of a subclass included.
        """

        def __get__(self, instance: object, cls: type[Any] | None = None) -> Q: ...


class _ReadingCounters(Counters):
    def totals(self, subjects: Collection[str]) -> Mapping[str, int | None]:
        """Return the totals of counters by subject. FAIL_OPEN: None for each of them."""
        return self._run(self._totals(subjects), make_away=lambda: dict.fromkeys(subjects))

    async def atotals(self, subjects: Collection[str]) -> Mapping[str, int | None]:
        """Async version of totals()."""
        return await self._arun(self._totals(subjects), make_away=lambda: dict.fromkeys(subjects))

    def _totals(self, subjects: Collection[str]) -> Steps[Mapping[str, int | None]]:
        return (yield from self.stream.get_many(list(subjects)))


Group: TypeAlias = "tuple[Iterable[models.Model], Collection[str]]"
"""Model instances, with the names of the counters to read for each."""


def prefetch_counters(objects: Iterable[models.Model], *names: str) -> None:
    """Read the counters of model instances, and keep the totals with the objects.

    ``names`` are those of counter fields, by default all that each object has. One round trip for
    each alias of NATS_COUNTERS, for any number of objects and names. ``article.views``, used as a
    number, does not ask the server after that: see BoundCounter.

    Raises CounterUnavailable if the server is unavailable, ValueError if an object has not been
    saved, FieldDoesNotExist if a name is not that of a counter field, and TypeError if an object
    is not a model instance. A row whose primary key is empty, or too long for a counter's name,
    is left out, shown as empty, and logged once. FAIL_OPEN: the totals are unknown, and shown as
    empty.
    """
    prefetch_groups([(objects, names)])


async def aprefetch_counters(objects: Iterable[models.Model], *names: str) -> None:
    """Async version of prefetch_counters()."""
    for alias, wanted in _wanted([(objects, names)]).items():
        _keep(wanted, await _ReadingCounters(alias).atotals(wanted))


def prefetch_groups(groups: Iterable[Group]) -> None:
    """Read different counters of different objects in one round trip, as prefetch_counters()."""
    for alias, wanted in _wanted(groups).items():
        _keep(wanted, _ReadingCounters(alias).totals(wanted))


class CounterQuerySet(models.QuerySet[M, M]):
    """A queryset that reads the counters of its objects.

    Use it as ``objects = CounterQuerySet.as_manager()``, or as a mixin of another queryset class.
    """

    _counters: tuple[str, ...] = ()
    _counters_missing = False

    if TYPE_CHECKING and not MYPY:

        @classmethod
        def as_manager(cls) -> CounterManager[M, Self]: ...

    def with_counters(self, *names: str) -> Self:
        """Return a queryset that reads counters, by default all, together with its objects.

        It reads them when it is evaluated, and with iterator() for each chunk of objects, 1,024 by
        default. Where it returns no objects, as with values() and dates(), it reads none. See
        prefetch_counters() for what is raised then. Raises FieldDoesNotExist at once if a name is
        not that of a counter field.
        """
        found: Self = self.all()
        found._counters = (*self._counters, *_names(self.model, names))
        return found

    def without_counters(self) -> Self:
        """Return a queryset of the same objects that does not read their counters."""
        found: Self = self.all()
        found._counters = ()
        return found

    # Django's methods, and those of other packages' querysets, which may take more arguments -----

    def _clone(self, *args: Any, **kwargs: Any) -> Self:
        clone: Self = super()._clone(*args, **kwargs)  # type: ignore[misc]  # not in Django's stubs
        clone._counters = self._counters
        return clone

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the rows. Django loads them for that, and their counters are not read."""
        deleted = super(CounterQuerySet, self.without_counters()).delete(*args, **kwargs)
        self._result_cache = None
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]  # not for templates
    delete.queryset_only = True  # type: ignore[attr-defined]  # nor for managers

    @property
    def _wanted_counters(self) -> tuple[str, ...]:
        # Django sets it where a queryset returns values or dates instead of objects.
        fields = self._fields  # type: ignore[attr-defined]  # not in Django's stubs
        return self._counters if fields is None else ()

    def _fetch_all(self) -> None:
        # Objects that are there already came from a Prefetch, which has read their counters.
        if self._result_cache is None:
            self._counters_missing = bool(self._wanted_counters)
        super()._fetch_all()
        if self._counters_missing:
            prefetch_counters(self._result_cache or [], *self._counters)
            self._counters_missing = False

    def iterator(self, chunk_size: int | None = None, *args: Any, **kwargs: Any) -> Iterator[M]:
        """Yield the objects, and read the counters of each chunk in one round trip."""
        objects = super().iterator(chunk_size, *args, **kwargs)
        if not self._wanted_counters:
            return objects
        return self._in_chunks(objects, chunk_size or MAX_BATCH)

    def _in_chunks(self, objects: Iterator[M], size: int) -> Iterator[M]:
        while chunk := list(islice(objects, size)):
            prefetch_counters(chunk, *self._counters)
            yield from chunk

    async def aiterator(
        self, chunk_size: int = MAX_BATCH, *args: Any, **kwargs: Any
    ) -> AsyncIterator[M]:
        """Async version of iterator()."""
        chunk: list[M] = []
        async for each in super().aiterator(chunk_size, *args, **kwargs):
            chunk.append(each)
            if len(chunk) == chunk_size:
                for counted in await self._with_totals(chunk):
                    yield counted
                chunk = []
        for counted in await self._with_totals(chunk):
            yield counted

    async def _with_totals(self, chunk: list[M]) -> list[M]:
        if self._wanted_counters:
            await aprefetch_counters(chunk, *self._counters)
        return chunk


def _names(model: type[models.Model], names: Collection[str]) -> list[str]:
    fields = {field.name for field in counter_fields(model)}
    for name in names:
        if name not in fields:
            raise FieldDoesNotExist(
                f"{model._meta.object_name} has no counter {name!r}; its counters are: "
                f"{', '.join(sorted(fields)) or 'none'}"
            )
    return list(dict.fromkeys(names)) or sorted(fields)


def _wanted(groups: Iterable[Group]) -> dict[str, dict[str, list[BoundCounter]]]:
    """Return the counters to be read, by alias and subject.

    A subject has several counters if a row is among the objects more than once.
    """
    wanted: dict[str, dict[str, list[BoundCounter]]] = {}
    for counter in chain.from_iterable(starmap(_counters, groups)):
        if not isinstance(counter, NamelessCounter):
            wanted.setdefault(counter.alias, {}).setdefault(counter._subject, []).append(counter)
    return wanted


def _counters(objects: Iterable[models.Model], names: Collection[str]) -> Iterator[BoundCounter]:
    known: dict[type[models.Model], list[str]] = {}
    for each in objects:
        model = each.__class__  # of the object itself, where a lazy object stands for it
        if model not in known:
            if not isinstance(each, models.Model):
                raise TypeError(
                    f"Counters are kept with model instances, not with {model.__name__}. Leave "
                    "out values(), or read the counters with counters.get_many()."
                )
            known[model] = _names(model, names)
        for name in known[model]:
            yield getattr(each, name)


def _keep(wanted: Mapping[str, list[BoundCounter]], totals: Mapping[str, Any]) -> None:
    for subject, counters in wanted.items():
        for counter in counters:
            counter.keep(totals[subject])
