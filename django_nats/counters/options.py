"""Where a model's options keep its counters: apart from its fields, which have columns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError
from django.db.models import Model
from django.db.models.options import Options
from django.db.models.signals import class_prepared

if TYPE_CHECKING:
    from .fields import CounterField

    _Options = Options[Any]
else:
    _Options = Options


class CountedOptions(_Options):
    """The options of a model with counters: ``get_field()`` also finds these.

    ``fields``, ``get_fields()`` and ``private_fields`` do not contain them. Other packages copy,
    compare, serialize or fill in what they find there, as columns or relations.
    """

    counters: dict[str, CounterField]

    def get_field(self, field_name: str) -> Any:
        """Return a field or a counter by its name."""
        return self.counters.get(field_name) or super().get_field(field_name)


def counters_of(model: type) -> dict[str, CounterField]:
    """Return the counters of a model by name, its own and those of its parents."""
    options = vars(model).get("_meta")
    return options.counters if isinstance(options, CountedOptions) else {}


def register(model: type[Model], field: CounterField) -> None:
    """Add a counter to a model's options."""
    options: Any = model._meta
    if not isinstance(options, CountedOptions):
        options.__class__ = _with_counters(type(options))
        options.counters = {}
    options.counters[field.name] = field


def _with_counters(base: type) -> Any:
    # Another package may have a class of options of its own.
    if base not in _classes:
        _classes[base] = type("Options", (CountedOptions, base), {})
    return _classes[base]


_classes: dict[type, type] = {}


def _inherit(sender: type[Model], **kwargs: Any) -> None:
    """Give a model the counters of its parents, unless an attribute has replaced them.

    Children of an abstract model have counters of their own. Proxies, and children by multi-table
    inheritance, share those of their parents.
    """
    own = _names_of_own_fields(sender)
    replaced = set(vars(sender))
    for base in sender.__mro__[1:]:
        counters = counters_of(base)
        if _is_concrete(base):
            _refuse_clashes(sender, own, base)
        for name, field in counters.items():
            if name in replaced:
                continue
            if field.origin._meta.abstract:
                copy.deepcopy(field).contribute_to_class(sender, name)
            else:
                field.share_with(sender)
        replaced |= {*vars(base), *counters}
    if sender._meta.proxy:
        _purge_with_family(sender)


def _purge_with_family(proxy: type[Model]) -> None:
    """Purge counters that proxies declare with rows that are deleted through another class."""
    concrete: Any = proxy._meta.concrete_model
    family = [concrete, *_proxies_of(concrete)]
    for declaring in family:
        for field in counters_of(declaring).values():
            if field.origin is declaring and declaring._meta.proxy:
                for each in family:
                    field.purge_with(each)


def _proxies_of(model: type[Model]) -> Iterator[type[Model]]:
    for each in model.__subclasses__():
        if each._meta.proxy:
            yield each
            yield from _proxies_of(each)


def _is_concrete(base: type) -> bool:
    return "_meta" in vars(base) and not vars(base)["_meta"].abstract


def _names_of_own_fields(model: type[Model]) -> set[str]:
    """Return the names of the fields and counters that a model does not share with a parent."""
    options = model._meta
    counters = [each for each in counters_of(model).values() if each.origin is model]
    own = [*options.local_fields, *options.local_many_to_many, *counters]
    return {each.name for each in own}


def _refuse_clashes(model: type[Model], own: set[str], base: type[Model]) -> None:
    """Raise FieldError, as Django does for columns, if a child has a field of a parent's name."""
    for name in sorted(own & _names_of_own_fields(base)):
        raise FieldError(
            f"Local field {name!r} in class {model.__name__!r} clashes with field of the same name "
            f"from base class {base.__name__!r}."
        )


class_prepared.connect(_inherit, dispatch_uid="django_nats.counters")
