"""The checks of counter fields: Django does not check what has no column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RenameModel
from django.db.models.constants import LOOKUP_SEP

from ..conf.counters import counter_aliases
from ..counters import CounterField, counter_fields

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


def check_aliases(**kwargs: Any) -> Iterable[CheckMessage]:
    """E003: the alias is there; what is wrong with its options is told when it is used."""
    aliases = counter_aliases()
    for field in counter_fields():
        if field.alias not in aliases:
            yield Error(
                f'NATS_COUNTERS has no alias "{field.alias}".',
                hint="Add it to the setting NATS_COUNTERS, or name another: CounterField(alias=…).",
                obj=field,
                id="django_nats.E003",
            )


def check_snapshots(**kwargs: Any) -> Iterable[CheckMessage]:
    """E004: what is to hold a total is a column of integers."""
    for field in counter_fields():
        if field.snapshot is not None and not _holds_integers(field, field.snapshot):
            yield Error(
                f"Its snapshot {field.snapshot!r} is no integer column of "
                f"{field.origin._meta.label}.",
                hint=f"Add {field.snapshot} = models.BigIntegerField(default=0) to the model.",
                obj=field,
                id="django_nats.E004",
            )


def _holds_integers(field: CounterField, name: str) -> bool:
    try:
        column = field.origin._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return isinstance(column, models.IntegerField) and not column.primary_key


def check_subjects(**kwargs: Any) -> Iterable[CheckMessage]:
    """E005: every field counts for itself. Tenants' subjects are known only when they are there."""
    first: dict[tuple[str, str], CounterField] = {}
    for field in counter_fields():
        if callable(field.subject):
            continue
        other = first.setdefault((field.alias, field.template()), field)
        if other is not field:
            yield Error(
                f"It has the same counters as {other}: {field.template()!r}.",
                hint="Give each a subject of its own.",
                obj=field,
                id="django_nats.E005",
            )


def check_admin_queries(**kwargs: Any) -> Iterable[CheckMessage]:
    """E006: what a change list filters, searches or orders by is in the database."""
    for admin in _admins():
        for option in ("list_filter", "search_fields", "ordering"):
            for named in getattr(admin, option) or ():
                name = named[0] if isinstance(named, (list, tuple)) else named
                field = _counter_at(admin.model, name)
                if field is not None:
                    yield Error(
                        f"Its {option} names {name!r}, which is a counter, not a column.",
                        hint="Name a column that holds its total: CounterField(snapshot=…).",
                        obj=admin.__class__,
                        id="django_nats.E006",
                    )


def check_admin_sorting(**kwargs: Any) -> Iterable[CheckMessage]:
    """W009: the admin offers to sort by any field that it lists."""
    for admin in _admins():
        for name in admin.list_display:
            if _counter_at(admin.model, name) is None or _is_sorted_otherwise(admin, name):
                continue
            yield Warning(
                f"Its list_display offers to sort by {name!r}, which is a counter, not a column.",
                hint="Derive it from django_nats.counters.admin.CounterAdminMixin too, or leave "
                f"{name!r} out of its sortable_by.",
                obj=admin.__class__,
                id="django_nats.W009",
            )


def _admins() -> Iterator[ModelAdmin[Any]]:
    if apps.is_installed("django.contrib.admin"):
        from django.contrib.admin.sites import all_sites

        for site in all_sites:
            yield from site._registry.values()


def _is_sorted_otherwise(admin: ModelAdmin[Any], name: object) -> bool:
    from ..counters.admin import CounterAdminMixin

    if admin.sortable_by is not None and name not in admin.sortable_by:
        return True
    return isinstance(admin, CounterAdminMixin) and LOOKUP_SEP not in str(name)


def _counter_at(model: type[models.Model] | None, path: object) -> CounterField | None:
    """The counter that a name leads to, through relations and with a lookup or a sign before."""
    for name in path.lstrip("-^=@").split(LOOKUP_SEP) if isinstance(path, str) else ():
        try:
            field: object = model._meta.get_field(name) if model else None
        except FieldDoesNotExist:
            return None
        if isinstance(field, CounterField):
            return field
        model = getattr(field, "related_model", None)
    return None


def check_renamed_models(**kwargs: Any) -> Iterable[CheckMessage]:
    """W008: counters that were made under a model's old name are not lost sight of."""
    for field in counter_fields():
        options = field.origin._meta
        old = _old_names(options.app_label).get(str(options.model_name))
        if field.subject is None and old is not None:
            subject = f"{options.app_label}.{old}.{{pk}}.{field.name}"
            yield Warning(
                f"Its model was called {old} once, and counters that were made then are not found "
                "under its new name.",
                hint=f"Set CounterField(subject={subject!r}) to go on with those, or "
                f"subject={field.template()!r} if there were none.",
                obj=field,
                id="django_nats.W008",
            )


def _old_names(app_label: str) -> dict[str, str]:
    """The first names of an app's models that migrations have renamed, by their last."""
    old: dict[str, str] = {}
    for operation in _operations(app_label):
        if isinstance(operation, RenameModel):
            name = operation.old_name_lower
            old[operation.new_name_lower] = old.pop(name, name)
    return old


def _operations(app_label: str) -> Iterator[object]:
    package, _ = MigrationLoader.migrations_module(app_label)
    try:
        module = import_module(package or "")
    except (ImportError, ValueError):
        return  # an app without migrations
    for each in sorted(each.name for each in iter_modules(getattr(module, "__path__", ()))):
        migration = getattr(import_module(f"{package}.{each}"), "Migration", None)
        yield from getattr(migration, "operations", ())


CHECKS = (
    check_aliases,
    check_snapshots,
    check_subjects,
    check_admin_queries,
    check_admin_sorting,
)
DEPLOY = (check_renamed_models,)
"""Those that only ``check --deploy`` runs."""
