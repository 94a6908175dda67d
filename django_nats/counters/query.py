"""The counters of many objects in one round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import models

from ..client.messages import MAX_BATCH
from ..client.steps import Steps
from ..client.twins import twins
from .collection import Counters
from .fields import BoundCounter, counter_fields

if TYPE_CHECKING:
    from typing_extensions import Self

M = TypeVar("M", bound=models.Model)


class _Reading(Counters):
    def _totals(self, subjects: Collection[str]) -> Steps[Mapping[str, int | None]]:
        return (yield from self.stream.get_many(list(subjects)))

    totals, atotals = twins(_totals, lambda subjects: dict.fromkeys(subjects))


def prefetch_counters(objects: Iterable[models.Model], *names: str) -> None:
    """Read the counters of model instances, by default all that they have, and keep the totals.

    One round trip for any number of objects and names, for each alias of NATS_COUNTERS among
    them. ``article.views`` as a number then asks nobody: see BoundCounter.

    Raises CounterUnavailable when the server is away (FAIL_OPEN: the totals are unknown, and shown
    as nothing), ValueError for an object that has not been saved, FieldDoesNotExist for a name
    that is no counter's, TypeError for what is no model instance.
    """
    for alias, wanted in _wanted(objects, names).items():
        _keep(wanted, _Reading(alias).totals(wanted))


async def aprefetch_counters(objects: Iterable[models.Model], *names: str) -> None:
    """See prefetch_counters."""
    for alias, wanted in _wanted(objects, names).items():
        _keep(wanted, await _Reading(alias).atotals(wanted))


class CounterQuerySet(models.QuerySet[M, M]):
    """A queryset with ``with_counters``; ``objects = CounterQuerySet.as_manager()``.

    It can be mixed into others that derive from Django's.
    """

    _counters: tuple[str, ...] = ()
    _to_count = False

    def with_counters(self, *names: str) -> Self:
        """Read counters together with the objects, by default all: see prefetch_counters.

        It happens when the queryset is evaluated; with iterator(), for as many objects at a time
        as it has in a chunk, 1,024 by default. Raises FieldDoesNotExist at once.
        """
        found: Self = self.all()
        found._counters = (*self._counters, *_names(self.model, names))
        return found

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]  # what Django's stubs leave out
        clone._counters = self._counters
        return clone

    def without_counters(self) -> Self:
        """The same objects, without asking for their counters."""
        found: Self = self.all()
        found._counters = ()
        return found

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows, which Django loads for that: nobody asks for their counters."""
        deleted = super(CounterQuerySet, self.without_counters()).delete()
        self._result_cache = None
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]  # not for templates
    delete.queryset_only = True  # type: ignore[attr-defined]  # nor for managers

    def _fetch_all(self) -> None:
        # Objects that it was given, by a Prefetch, have been counted already.
        if self._result_cache is None:
            self._to_count = bool(self._counters)
        super()._fetch_all()
        if self._to_count:
            prefetch_counters(self._result_cache or [], *self._counters)
            self._to_count = False

    def iterator(self, chunk_size: int | None = None) -> Iterator[M]:
        objects = super().iterator(chunk_size)
        return self._in_chunks(objects, chunk_size or MAX_BATCH) if self._counters else objects

    def _in_chunks(self, objects: Iterator[M], size: int) -> Iterator[M]:
        while chunk := list(islice(objects, size)):
            prefetch_counters(chunk, *self._counters)
            yield from chunk

    async def aiterator(self, chunk_size: int = MAX_BATCH) -> AsyncIterator[M]:
        chunk: list[M] = []
        async for each in super().aiterator(chunk_size):
            chunk.append(each)
            if len(chunk) == chunk_size:
                for counted in await self._with_totals(chunk):
                    yield counted
                chunk = []
        for counted in await self._with_totals(chunk):
            yield counted

    async def _with_totals(self, chunk: list[M]) -> list[M]:
        if self._counters:
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


def _wanted(
    objects: Iterable[models.Model], names: Collection[str]
) -> dict[str, dict[str, list[BoundCounter]]]:
    """The counters to be read, by alias and subject: a row may be there more than once."""
    known: dict[type[models.Model], list[str]] = {}
    wanted: dict[str, dict[str, list[BoundCounter]]] = {}
    for each in objects:
        model = type(each)
        if model not in known:
            if not isinstance(each, models.Model):
                raise TypeError(
                    f"Counters are kept with model instances, not with a {model.__name__}: leave "
                    "out values(), or read them with counters.get_many()"
                )
            known[model] = _names(model, names)
        for name in known[model]:
            counter = getattr(each, name)
            wanted.setdefault(counter.alias, {}).setdefault(counter._subject, []).append(counter)
    return wanted


def _keep(wanted: Mapping[str, list[BoundCounter]], totals: Mapping[str, Any]) -> None:
    for subject, counters in wanted.items():
        for counter in counters:
            counter.keep(totals[subject])
