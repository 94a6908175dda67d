"""``views_total = SnapshotField()``: the column to which a counter's total is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.signals import class_prepared, post_save, pre_save

if TYPE_CHECKING:
    from collections.abc import Collection

    _Column = models.BigIntegerField[Any, int]
else:
    _Column = models.BigIntegerField


class SnapshotField(_Column):
    """The column that ``CounterField(snapshot=…)`` names, for queries by the total.

    ``manage.py nats counters snapshot`` writes it. An object that was read before that holds the
    old total, so save() does not write this column to a row that exists, unless ``update_fields``
    names it. QuerySet.update() and bulk_update() write it as any other column. Forms and the admin
    do not offer to edit it.

    It takes the arguments of a BigIntegerField, which it is to migrations. Its default is 0.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Declare the column, with the arguments of a BigIntegerField."""
        super().__init__(*args, **{"default": 0, **kwargs, "editable": False})

    def deconstruct(self) -> Any:
        """Return the parts of a BigIntegerField.

        Migrations then run without this package, and none is needed for a column that was declared
        as a BigIntegerField before.
        """
        name, _, args, kwargs = super().deconstruct()
        del kwargs["editable"]
        return name, "django.db.models.BigIntegerField", args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Return what save() writes: for a row that exists, what is in the column."""
        value = super().pre_save(model_instance, add)
        if add or hasattr(value, "resolve_expression") or self.name in _named(model_instance):
            return value
        vars(model_instance._state).setdefault("_snapshots_kept", {})[self.attname] = value
        return models.F(self.name)


def _named(instance: models.Model) -> Collection[str]:
    """Return the columns that the running save() of an object names in update_fields."""
    named: Collection[str] = vars(instance._state).get("_snapshots_named", ())
    return named


def _note_named(instance: models.Model, update_fields: Collection[str] | None, **kw: Any) -> None:
    named = update_fields or ()
    others = {
        each.attname
        for each in instance._meta.concrete_fields
        if each.attname in vars(instance)
        and each not in instance._meta.pk_fields
        and not isinstance(each, SnapshotField)
    }
    # If columns are deferred, save() without update_fields names all those that are loaded.
    if instance.get_deferred_fields() and others and others.issubset(named):
        named = ()
    vars(instance._state)["_snapshots_named"] = frozenset(named)


def _restore_kept(instance: models.Model, **kwargs: Any) -> None:
    # Django defers a column that was saved as an expression, where updates return no values.
    for name, value in vars(instance._state).pop("_snapshots_kept", {}).items():
        vars(instance).setdefault(name, value)


def _prepare(sender: type[models.Model], **kwargs: Any) -> None:
    # Django sends these for the class of the object: for children and proxies as well.
    if any(isinstance(each, SnapshotField) for each in sender._meta.concrete_fields):
        pre_save.connect(_note_named, sender=sender)
        post_save.connect(_restore_kept, sender=sender)


class_prepared.connect(_prepare)
