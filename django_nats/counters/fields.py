"""``views = CounterField()``: a counter for every row of a model, and no column."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import NotSupportedError, models, router, transaction
from django.db.models.signals import post_delete

from .. import keys
from ..client.increments import require_integer
from ..client.steps import Steps
from ..client.twins import twins
from ..exceptions import InvalidKey
from .collection import DEFAULT_ALIAS, subject_of
from .deletion import purge_on_commit
from .handle import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    _Field = models.Field[NoReturn, "BoundCounter"]
else:
    _Field = models.Field

PK = "{pk}"


class BoundCounter(Counter):
    """The counter of one object: ``article.views``.

    A total that ``prefetch_counters`` or ``with_counters`` has read stays with the object. int(),
    str(), formats, comparisons and truth use it, and what the object itself changes or reads with
    value() goes into it; ``refresh_from_db()`` forgets it. Without one they ask the server.
    """

    __slots__ = ("_field", "_instance")

    def __init__(self, field: CounterField, instance: models.Model, subject: str) -> None:
        self._field = field
        self._instance = instance
        self._subject = subject
        self.alias = field.alias

    @property
    def name(self) -> tuple[str, ...]:  # type: ignore[override]
        # Pages make many of these, and nobody asks for their names.
        return keys.counter_parts(self._subject)

    def __reduce__(self) -> tuple[type[BoundCounter], tuple[object, ...]]:
        return type(self), (self._field, self._instance, self._subject)

    @overload
    def incr(self, n: int = 1, *, on_commit: Literal[False] = False) -> int: ...
    @overload
    def incr(self, n: int = 1, *, on_commit: Literal[True]) -> None: ...
    def incr(self, n: int = 1, *, on_commit: bool = False) -> int | None:
        """Add an integer of any size, exactly once; the new total. One round trip.

        With ``on_commit`` it waits for the commit of the transaction, if there is one, and returns
        None; a rollback drops it, and a failure is logged by Django, since the commit stands.
        Raises CounterUnavailable, with ``may_have_happened``, when that is not acknowledged within
        DEADLINE; TypeError for what is no integer. FAIL_OPEN: None.
        """
        if not on_commit:
            return super().incr(n)
        self._incr_on_commit(n)
        return None

    @overload
    async def aincr(self, n: int = 1, *, on_commit: Literal[False] = False) -> int: ...
    @overload
    async def aincr(self, n: int = 1, *, on_commit: Literal[True]) -> None: ...
    async def aincr(self, n: int = 1, *, on_commit: bool = False) -> int | None:
        """See incr. Transactions are those of the thread that Django's own async methods use."""
        if not on_commit:
            return await super().aincr(n)
        await sync_to_async(self._incr_on_commit)(n)
        return None

    def _incr_on_commit(self, n: int) -> None:
        require_integer("n", n)

        def committed() -> None:
            super(BoundCounter, self).incr(n)

        database = self._field.database_of(self._instance)
        transaction.on_commit(committed, using=database, robust=True)

    def _take(self, n: int = 1, floor: int = 0) -> Steps[bool]:
        taken = yield from super()._take(n, floor)
        if taken:
            self._adjust(-n)
        return taken

    _take.__doc__ = Counter._take.__doc__
    take, atake = twins(_take, lambda n=1, floor=0: False)

    def __iadd__(self, n: object) -> NoReturn:
        raise TypeError(f"A counter is not added to in Python: use {self._field.name}.incr({n!r})")

    def __isub__(self, n: object) -> NoReturn:
        raise TypeError(f"A counter is not added to in Python: use {self._field.name}.decr({n!r})")

    def incr_later(self, n: int = 1) -> None:
        """Add in the background: see ``Counters.incr_later``."""
        super().incr_later(n)
        self._adjust(n)

    for _operation in (incr, aincr, take, atake, incr_later):
        _operation.alters_data = True  # type: ignore[union-attr]  # not for templates
    del _operation

    # What was prefetched ---------------------------------------------------------------------

    def keep(self, total: int | None) -> None:
        """Let the object have this total until it is refreshed; None stands for unknown."""
        # Where Django keeps what it prefetches, so refresh_from_db() forgets it, and serializers
        # do after an update. The subject, for the object may get another primary key.
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


class _NoRow(AttributeError, ValueError):
    """A counter of an object that is not saved: as if the object had none, for hasattr()."""


class _Unknown:
    """Equal to a counter whose total could not be read: the admin shows that as empty."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundCounter) and other._kept() == (None,)


class CounterField(_Field):
    """A counter on the server for every row of a model: no column, no migration.

    ``article.views`` is a Counter; ``Article.views`` is this field. The counter's name is
    ``<database>.<app label>.<model>.<primary key>.<field>``, where the database is the one that
    the row is written to, and the model the one that declares the field: children by multi-table
    inheritance and proxies share it, those of an abstract model have counters of their own.

    ``subject`` is a name in place of all but the database, such as "blog.article.{pk}.views": one
    that stays when the model is renamed. A callable that returns one is asked at every use, for
    tenants. ``alias`` is the one of NATS_COUNTERS. ``snapshot`` names an integer column of the
    same model, for queries, that ``manage.py nats counters snapshot`` brings up to date.

    Deleting rows purges their counters after the commit.

    Raises ValueError for a subject without a token {pk}, or with more than one.
    """

    description = "Counter on NATS"
    empty_values = (*_Field.empty_values, _Unknown())
    mti_inherited = False  # Django sets it on the copies that children and proxies get
    origin: type[models.Model]
    """The model that declares the field."""

    def __init__(
        self,
        verbose_name: str | None = None,
        *,
        subject: str | Callable[[], str] | None = None,
        alias: str = DEFAULT_ALIAS,
        snapshot: str | None = None,
        help_text: str = "",
    ) -> None:
        super().__init__(verbose_name, editable=False, blank=True, help_text=help_text)
        if isinstance(subject, str):
            _split(subject)
        self.subject = subject
        self.alias = alias
        self.snapshot = snapshot
        self._frames: dict[tuple[str, str], tuple[str, str]] = {}

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = True
    ) -> None:
        super().contribute_to_class(cls, name, private_only=True)
        setattr(cls, name, self)
        setattr(cls, self.attname, None)
        if not self.mti_inherited:
            self.origin = cls
        if cls._meta.abstract:
            return
        # A child's deletion is its parent's too, unless the parent is kept; a proxy's is not.
        if cls is self.origin or cls._meta.concrete_model is self.origin._meta.concrete_model:
            post_delete.connect(self._purge, sender=cls)

    def get_attname_column(self) -> tuple[str, None]:
        # Code that goes through all fields, as full_clean() does, finds nothing here to read or
        # to compare: no server is asked.
        return f"_{self.name}_counter", None

    # Counters --------------------------------------------------------------------------------

    def counter(self, pk: Any, *, using: str | None = None) -> Counter:
        """The counter of the row with a primary key, a tuple if composite, without loading it.

        ``using`` is the database's alias, by default the one that the model is written to.
        """
        subject = self.counter_subject(pk, using=using)
        return Counter(*keys.counter_parts(subject), alias=self.alias)

    def counter_subject(self, pk: Any, *, using: str | None = None) -> str:
        """The subject of that counter, without its stream's prefix."""
        return self._subject(pk, self._database(using))

    def counter_filter(self, *, using: str | None = None) -> str:
        """The subject filter for the counters of all rows of a database."""
        head, tail = self._frame(self._database(using))
        return head + ".".join("*" * len(self.origin._meta.pk_fields)) + tail

    def pk_of(self, subject: str, *, using: str | None = None) -> Any:
        """The primary key in a subject; None if that is none of the field's in a database."""
        try:
            name = keys.counter_parts(subject)
        except InvalidKey:
            return None
        before, after = _split(self.template())
        fields = self.origin._meta.pk_fields
        start = 1 + len(before)
        texts = name[start : start + len(fields)]
        expected = (self._database(using), *before, *texts, *after)
        if name != expected or len(texts) != len(fields):
            return None
        try:
            values = tuple(field.to_python(text) for field, text in zip(fields, texts, strict=True))
        except ValidationError:
            return None
        return values if self.origin._meta.is_composite_pk else values[0]

    def database_of(self, instance: models.Model) -> str:
        """The alias of the database that an object is written to."""
        return router.db_for_write(self.origin, instance=instance)

    def _database(self, using: str | None) -> str:
        return using or router.db_for_write(self.origin)

    def template(self) -> str:
        """What the names of the counters are made of, the database left out."""
        if self.subject is None:
            options = self.origin._meta
            return f"{options.app_label}.{options.model_name}.{PK}.{self.name}"
        return self.subject if isinstance(self.subject, str) else self.subject()

    def _frame(self, database: str) -> tuple[str, str]:
        """What stands before and after the primary key in a subject."""
        template = self.template()
        try:
            return self._frames[database, template]
        except KeyError:
            before, after = _split(template)
            tokens = subject_of((database, *before, "0", *after)).split(".")
            position = 1 + len(before)
            head, tail = tokens[:position], tokens[position + 1 :]
            frame = ".".join([*head, ""]), ".".join(["", *tail])
            return self._frames.setdefault((database, template), frame)

    def _subject(self, pk: Any, database: str) -> str:
        fields = self.origin._meta.pk_fields
        values = pk if isinstance(pk, (tuple, list)) else (pk,)
        if len(values) != len(fields) or None in values:
            raise ValueError(f"{self}: {pk!r} is no primary key of {self.origin._meta.label}")
        head, tail = self._frame(database)
        if type(pk) is int and isinstance(fields[0], models.IntegerField):
            return f"{head}{pk}{tail}"  # what the rest comes to, for nearly all rows
        texts = [str(field.to_python(each)) for field, each in zip(fields, values, strict=True)]
        before, after = _split(self.template())
        return subject_of((database, *before, *texts, *after))

    # On a model's class and instances ----------------------------------------------------------

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: object) -> CounterField: ...
    @overload
    def __get__(self, instance: models.Model, owner: object) -> BoundCounter: ...
    def __get__(self, instance: models.Model | None, owner: object) -> CounterField | BoundCounter:
        if instance is None:
            return self
        pk = getattr(instance, self.origin._meta.pk.attname)
        if pk is None or instance._state.adding:
            raise _NoRow(
                f"Save the {instance._meta.object_name} before you use its {self.name}: a counter "
                "belongs to a row of the database. For one whose key you know, without loading "
                f"it, there is {instance._meta.object_name}.{self.name}.counter(pk)."
            )
        return BoundCounter(self, instance, self._subject(pk, self.database_of(instance)))

    def __set__(self, instance: models.Model, value: NoReturn) -> NoReturn:
        raise AttributeError(
            f"{self} is a counter, not a column: it cannot be given a value. Use "
            f"{self.name}.incr(n), or {self.name}.set(n), on an object that has been saved."
        )

    def value_from_object(  # type: ignore[override]
        self, obj: models.Model
    ) -> int | None:
        """The total, prefetched or not: what serializers ask for. FAIL_OPEN: None."""
        counter: BoundCounter = getattr(obj, self.name)
        return counter._known()

    # What Django asks of a field, when a query or an update names it ---------------------------

    def get_col(self, alias: str, output_field: object = None) -> NoReturn:
        raise self._no_column()

    def get_db_prep_save(self, value: object, connection: object) -> NoReturn:
        raise self._no_column()

    def _no_column(self) -> NotSupportedError:
        # No FieldError: of that, values() would make one that tells less.
        if self.snapshot:
            instead = f"Use its column {self.snapshot!r}."
        else:
            instead = (
                "For that, name an integer column that is brought up to date now and then: "
                'CounterField(snapshot="…").'
            )
        return NotSupportedError(
            f"{self} is a counter, not a column: it is not in the database, to filter or order by, "
            f"to aggregate or update there. {instead} To read it with every object, use "
            f"prefetch_counters() or with_counters({self.name!r}); to change it, "
            f"{self.name}.incr()."
        )

    # Deleting --------------------------------------------------------------------------------

    def _purge(self, instance: models.Model, using: str, **kwargs: Any) -> None:
        pk = getattr(instance, self.origin._meta.pk.attname)
        with suppress(InvalidKey):  # a key too long for a counter, which never had one
            purge_on_commit(self.alias, self.counter_subject(pk, using=using), using)


def counter_fields(model: type[models.Model] | None = None) -> list[CounterField]:
    """The counter fields of a model, or of all installed models, each where it is declared."""
    declaring = apps.get_models() if model is None else [model]
    return [
        field
        for each in declaring
        for field in each._meta.private_fields
        if isinstance(field, CounterField) and (model is not None or field.origin is each)
    ]


def _split(subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tokens = tuple(subject.split("."))
    if tokens.count(PK) != 1 or not all(tokens):
        raise ValueError(
            f"CounterField(subject={subject!r}): it needs the token {PK} once, between dots, such "
            f'as "blog.article.{PK}.views"'
        )
    position = tokens.index(PK)
    return tokens[:position], tokens[position + 1 :]
