"""``views = CounterField()``: a counter for every row of a model, without a column."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import NotSupportedError, models, router
from django.db.models.constants import LOOKUP_SEP
from django.db.models.signals import post_delete

from .. import keys
from ..exceptions import InvalidKey
from .bound import BoundCounter
from .collection import DEFAULT_ALIAS, subject_of
from .deletion import purge_on_commit
from .handle import Counter
from .nameless import NamelessCounter
from .options import counters_of, register
from .primary_keys import has_own_type, key_text

if TYPE_CHECKING:
    from typing_extensions import Self

    _Field = models.Field[NoReturn, "BoundCounter"]
else:

    class _Field(models.Field, property):
        """A field that is also a property.

        Other packages know that the database cannot filter or order by a property.
        """


F = TypeVar("F", bound="models.Field[Any, Any]")

PK = "{pk}"


class _NotSaved(AttributeError, ValueError):
    """An object that is not saved has no counter. An AttributeError, so that hasattr() is False."""

    silent_variable_failure = True  # templates show nothing


class _UnknownTotal:
    """Equal to a counter whose total is unknown, so that the admin shows it as empty."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundCounter) and other._kept() == (None,)


def _new(cls: type[F]) -> F:
    return cls.__new__(cls)


class CounterField(_Field):
    """A counter on the server for every row of a model, without a column or a migration.

    ``article.views`` is a Counter, ``Article.views`` is this field. The counter's name is
    ``<database>.<app label>.<model>.<primary key>.<field>``. The database is the one that the row
    is written to. The model is the one that declares the field: proxies and children by multi-table
    inheritance share its counters, while each child of an abstract model has counters of its own.
    ``_meta.get_field()`` finds the field. ``_meta.fields`` and ``_meta.get_fields()``, in which
    other packages expect columns and relations, do not contain it.

    ``subject`` replaces all of the name but the database, for example with
    "blog.article.{pk}.views", so that counters survive a renamed model. It may be a callable that
    returns such a name, which is called at every use, for example for tenants. ``alias`` is an
    alias of NATS_COUNTERS. ``snapshot`` names a column of the same model for queries, a
    SnapshotField, which ``manage.py nats counters snapshot`` brings up to date.

    Deleting a row purges its counters after the commit.

    Raises ValueError if the subject does not contain the token {pk} exactly once.
    """

    description = "Counter on NATS"
    empty_values = (*_Field.empty_values, _UnknownTotal())
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
        """Declare a counter. See the class for the arguments."""
        super().__init__(verbose_name, editable=False, blank=True, help_text=help_text)
        if isinstance(subject, str):
            _split(subject)
        self.subject = subject
        self.alias = alias
        self.snapshot = snapshot
        self._affixes: dict[tuple[str, str], tuple[str, str]] = {}

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = False
    ) -> None:
        """Add the field to a model, and purge counters when the model's rows are deleted."""
        self.set_attributes_from_name(name)
        self.model = self.origin = cls
        setattr(cls, name, self)
        self.share_with(cls)

    def share_with(self, cls: type[models.Model]) -> None:
        """Add the field to a proxy or a child of its model as well."""
        register(cls, self)
        if cls._meta.abstract:
            return
        # Deleting a child sends post_delete for its parent as well, unless keep_parents is given.
        # Deleting by a proxy sends it for the proxy only.
        if cls is self.origin or cls._meta.concrete_model is self.origin._meta.concrete_model:
            self.purge_with(cls)

    def purge_with(self, cls: type[models.Model]) -> None:
        """Purge counters when rows are deleted through a class."""
        post_delete.connect(self._purge, sender=cls)

    def get_attname_column(self) -> tuple[str, None]:
        """Return the name of the attribute, and no column."""
        return self.name, None

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Return the name, the class's path, and the arguments that make an equal field."""
        name, path, args, kwargs = super().deconstruct()
        for given in ("editable", "blank"):
            kwargs.pop(given, None)
        if self.subject is not None:
            kwargs["subject"] = self.subject
        if self.alias != DEFAULT_ALIAS:
            kwargs["alias"] = self.alias
        if self.snapshot is not None:
            kwargs["snapshot"] = self.snapshot
        path = path.replace("django_nats.counters.fields", "django_nats.counters")
        return name, path, list(args), kwargs

    def __copy__(self) -> Self:
        """Return a field with the same state."""
        # Django makes an instance of another class first, which cannot become a property.
        made = _new(type(self))
        vars(made).update(vars(self))
        return made

    def __reduce__(self) -> Any:
        """Pickle the name of the field, or its state if it belongs to no model."""
        if hasattr(self, "model"):
            return super().__reduce__()
        return _new, (type(self),), vars(self).copy()

    @property
    def fget(self) -> Callable[[models.Model], int]:
        """Return a function that returns the total, as every property has.

        Tools read its annotations, and show its docstring, the field's help text, to users.
        """

        def total(instance: models.Model) -> int:
            return int(getattr(instance, self.name))

        total.__doc__ = str(self.help_text) or None
        return total

    # Counters --------------------------------------------------------------------------------

    def counter(self, pk: Any, *, using: str | None = None) -> Counter:
        """Return the counter of a row by its primary key, without loading the row.

        A composite key is a tuple. ``using`` is the alias of the database, by default the one that
        the model is written to. Raises ValueError if ``pk`` is not a primary key of the model.
        """
        subject = self.counter_subject(pk, using=using)
        return Counter(*keys.counter_parts(subject), alias=self.alias)

    def counter_subject(self, pk: Any, *, using: str | None = None) -> str:
        """Return the subject of counter(pk), without its stream's prefix."""
        return self._subject(pk, self._database(using))

    def counter_filter(self, *, using: str | None = None) -> str:
        """Return the subject filter that matches the counters of all rows in a database."""
        head, tail = self._affixes_of(self._database(using))
        return head + ".".join("*" * len(self.origin._meta.pk_fields)) + tail

    def pk_of(self, subject: str, *, using: str | None = None) -> Any:
        """Return the primary key in a subject, or None if it is not a subject of this field.

        ``using`` is the alias of the database, by default the one that the model is written to.
        """
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
            pk = values if self.origin._meta.is_composite_pk else values[0]
            # The field writes each key in one way only.
            return pk if self.counter_subject(pk, using=using) == subject else None
        except (ValidationError, ValueError, ArithmeticError):
            return None

    def database_of(self, instance: models.Model) -> str:
        """Return the alias of the database that an object is written to."""
        return router.db_for_write(self.origin, instance=instance)

    def _database(self, using: str | None) -> str:
        return using or router.db_for_write(self.origin)

    def template(self) -> str:
        """Return the name of the counters without the database, with {pk} for the primary key."""
        if self.subject is None:
            options = self.origin._meta
            return f"{options.app_label}.{options.model_name}.{PK}.{self.name}"
        return self.subject if isinstance(self.subject, str) else self.subject()

    def _affixes_of(self, database: str) -> tuple[str, str]:
        """Return what stands before and after the primary key in a subject."""
        template = self.template()
        try:
            return self._affixes[database, template]
        except KeyError:
            before, after = _split(template)
            tokens = subject_of((database, *before, "0", *after)).split(".")
            position = 1 + len(before)
            head, tail = tokens[:position], tokens[position + 1 :]
            affixes = ".".join([*head, ""]), ".".join(["", *tail])
            return self._affixes.setdefault((database, template), affixes)

    def _subject(self, pk: Any, database: str) -> str:
        fields = self.origin._meta.pk_fields
        values = pk if isinstance(pk, (tuple, list)) else (pk,)
        if len(values) != len(fields) or None in values:
            raise self._no_key(pk)
        head, tail = self._affixes_of(database)
        first = fields[0]
        if type(pk) is int and isinstance(first, models.IntegerField) and not has_own_type(first):
            return f"{head}{pk}{tail}"  # the shortcut for nearly all models: same as below
        try:
            texts = [
                key_text(field, each, database) for field, each in zip(fields, values, strict=True)
            ]
        except ValueError as error:
            raise self._no_key(pk) from error
        before, after = _split(self.template())
        return subject_of((database, *before, *texts, *after))

    def _no_key(self, pk: object) -> ValueError:
        return ValueError(f"{self}: {pk!r} is not a primary key of {self.origin._meta.label}.")

    # On a model's class and instances ----------------------------------------------------------

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: object) -> CounterField: ...
    @overload
    def __get__(self, instance: models.Model, owner: object) -> BoundCounter: ...
    def __get__(self, instance: models.Model | None, owner: object) -> CounterField | BoundCounter:
        """Return the counter of an object, or this field if it is read from the class."""
        if instance is None:
            return self
        pk = getattr(instance, self.origin._meta.pk.attname)
        # A deletion clears the object's own key, but not the key of its parent.
        own = instance.pk
        values = (pk, *own) if isinstance(own, tuple) else (pk, own)
        if instance._state.adding or None in values:
            raise _NotSaved(
                f"Save the {instance._meta.object_name} before you use its {self.name}: a counter "
                "belongs to a row of the database. For a row whose primary key you know, use "
                f"{instance._meta.object_name}.{self.name}.counter(pk)."
            )
        database = self.database_of(instance)
        try:
            subject = self._subject(pk, database)
        except InvalidKey as error:
            self._affixes_of(database)  # raises if it is not about this row, but about all
            return NamelessCounter(self, instance, str(error))
        return BoundCounter(self, instance, subject)

    def __set__(self, instance: models.Model, value: NoReturn) -> NoReturn:
        """Raise AttributeError, which names incr() and set()."""
        raise AttributeError(
            f"{self} is a counter, not a column: no value can be assigned to it. Use "
            f"{self.name}.incr(n), or {self.name}.set(n), on an object that has been saved."
        )

    def value_from_object(  # type: ignore[override]
        self, obj: models.Model
    ) -> int | None:
        """Return the total, prefetched or not, or None if the object is not saved.

        FAIL_OPEN: return None.
        """
        counter: BoundCounter | None = getattr(obj, self.name, None)
        return None if counter is None else counter._known()

    # Called by Django if a query or an update names the field -----------------------------------

    def get_col(self, alias: str, output_field: object = None) -> NoReturn:
        """Raise NotSupportedError, which says what to use instead of a column."""
        raise self._no_column()

    def get_db_prep_save(self, value: object, connection: object) -> NoReturn:
        """Raise NotSupportedError, which says what to use instead of a column."""
        raise self._no_column()

    def _no_column(self) -> NotSupportedError:
        # Not a FieldError: values() would replace that with one that says less.
        if self.snapshot:
            instead = f"Use its column {self.snapshot!r}."
        else:
            instead = (
                'Add a SnapshotField for that, and name it with CounterField(snapshot="…"): '
                "`manage.py nats counters snapshot` copies the totals there."
            )
        return NotSupportedError(
            f"{self} is a counter, not a column: the database cannot filter, order, aggregate or "
            f"update by it. {instead} To read it with every object, use prefetch_counters() or "
            f"with_counters({self.name!r}). To change it, use {self.name}.incr()."
        )

    # Deleting --------------------------------------------------------------------------------

    def _purge(self, instance: models.Model, using: str | None = None, **kwargs: Any) -> None:
        using = using or self.database_of(instance)
        pk = getattr(instance, self.origin._meta.pk.attname)
        with suppress(InvalidKey):  # a primary key that is too long for a counter never had one
            subject = self.counter_subject(pk, using=using)
            purge_on_commit(self.alias, subject, using, kwargs.get("origin"))


def counter_fields(model: type[models.Model] | None = None) -> list[CounterField]:
    """Return the counter fields of a model, or of all installed models.

    Without a model, each field is returned once, for the model that declares it.
    """
    declaring = apps.get_models() if model is None else [model]
    return [
        field
        for each in declaring
        for field in counters_of(each).values()
        if model is not None or field.origin is each
    ]


def counter_at(model: type[models.Model] | None, path: object) -> CounterField | None:
    """Return the counter that a lookup path leads to, over any number of relations, or None."""
    for name in path.split(LOOKUP_SEP) if isinstance(path, str) else ():
        try:
            field: object = model._meta.get_field(name) if model else None
        except FieldDoesNotExist:
            return None
        if isinstance(field, CounterField):
            return field
        model = getattr(field, "related_model", None)
    return None


def _split(subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tokens = tuple(subject.split("."))
    if tokens.count(PK) != 1 or not all(tokens):
        raise ValueError(
            f"CounterField(subject={subject!r}): the subject must contain the token {PK} exactly "
            f'once, between dots, for example "blog.article.{PK}.views".'
        )
    position = tokens.index(PK)
    return tokens[:position], tokens[position + 1 :]
