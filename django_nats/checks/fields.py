"""The system checks of counter fields, which Django does not check: they have no column."""

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

from ..conf.counters import counter_aliases
from ..counters import CounterField, counter_fields
from ..counters.fields import counter_at
from ..counters.primary_keys import holds_several_values

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


def check_aliases(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E003 if a field's alias does not exist. Its options are checked as E001."""
    aliases = counter_aliases()
    for field in counter_fields():
        if field.alias not in aliases:
            yield Error(
                f'NATS_COUNTERS has no alias "{field.alias}".',
                hint="Add it to NATS_COUNTERS, or name another alias with CounterField(alias=…).",
                obj=field,
                id="django_nats.E003",
            )


def check_snapshots(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E004 if a field's snapshot is not an integer column."""
    for field in counter_fields():
        if field.snapshot is not None and not _holds_integers(field, field.snapshot):
            yield Error(
                f"Its snapshot {field.snapshot!r} is not an integer column of "
                f"{field.origin._meta.label}.",
                hint=f"Add {field.snapshot} = SnapshotField() to the model.",
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
    """Yield E005 if two fields have the same counters.

    Subjects from callables are not compared: they may depend on the tenant.
    """
    first: dict[tuple[str, str], CounterField] = {}
    for field in counter_fields():
        if callable(field.subject):
            continue
        other = first.setdefault((field.alias, field.template()), field)
        if other is not field:
            yield Error(
                f"It has the same counters as {other}: {field.template()!r}.",
                hint="Give each field a subject of its own: CounterField(subject=…).",
                obj=field,
                id="django_nats.E005",
            )


def check_primary_keys(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E009 if a model's key has no one text, so that a row could have two counters."""
    for field in counter_fields():
        for key in field.origin._meta.pk_fields:
            if holds_several_values(key):
                yield Error(
                    f"The primary key {key.name!r} of {field.origin._meta.label} holds several "
                    "values in one, which can be written in more than one way. It cannot be a part "
                    "of a counter's name.",
                    hint="Give the model another primary key, and this column a unique constraint.",
                    obj=field,
                    id="django_nats.E009",
                )


def check_parents(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E007 if parents of a model have a field of the same name, and one is a counter.

    Django checks this for columns.
    """
    for model in apps.get_models():
        if model._meta.proxy:
            continue
        first = {each.name: each for each in _declared_fields(model)}
        for parent in model._meta.all_parents:
            for field in _declared_fields(parent):
                other = first.setdefault(field.name, field)
                counters = [each for each in (other, field) if isinstance(each, CounterField)]
                if other is not field and counters:
                    yield Error(
                        f"The field {field.name!r} from model {other.model._meta.label} clashes "
                        f"with the field of the same name from model {field.model._meta.label}.",
                        hint=f"Rename one of them: {model._meta.object_name}.{field.name} is only "
                        "the first of them.",
                        obj=model,
                        id="django_nats.E007",
                    )


def check_relations(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E007 if the reverse of a relation has the name of a counter.

    Django checks this for columns.
    """
    for model in apps.get_models():
        for field in counter_fields(model):
            for relation in model._meta.related_objects:
                names = (relation.name, relation.get_accessor_name())
                if relation.model is model and not relation.hidden and field.name in names:
                    yield Error(
                        f"Its reverse has the name of the counter {field}.",
                        hint="Set another related_name, or rename the counter.",
                        obj=relation.field,
                        id="django_nats.E007",
                    )


def _declared_fields(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    counters = [each for each in counter_fields(model) if each.origin is model]
    return [*model._meta.local_fields, *counters]


def check_admin_queries(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E006 if a change list filters, searches or orders by a counter."""
    for admin in _admins():
        for option in ("list_filter", "search_fields", "ordering"):
            for named in getattr(admin, option) or ():
                name = named[0] if isinstance(named, (list, tuple)) else named
                field = counter_at(admin.model, _without_sign(name))
                if field is not None:
                    yield Error(
                        f"Its {option} names {name!r}, which is a counter, not a column.",
                        hint="Name the column that holds its total instead: "
                        "CounterField(snapshot=…).",
                        obj=admin.__class__,
                        id="django_nats.E006",
                    )


def check_admin_sorting(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W009 if a change list offers to sort by a counter, as by any field it lists."""
    for admin in _admins():
        for name in admin.list_display:
            if counter_at(admin.model, name) is None or _is_not_sorted_by(admin, name):
                continue
            yield Warning(
                f"Its list_display offers to sort by {name!r}, which is a counter, not a column.",
                hint="Derive it from django_nats.counters.admin.CounterAdminMixin, too, or set "
                f"sortable_by without {name!r}.",
                obj=admin.__class__,
                id="django_nats.W009",
            )


def _admins() -> Iterator[ModelAdmin[Any]]:
    if apps.is_installed("django.contrib.admin"):
        from django.contrib.admin.sites import all_sites

        for site in all_sites:
            yield from site._registry.values()


def _is_not_sorted_by(admin: ModelAdmin[Any], name: object) -> bool:
    from ..counters.admin import CounterAdminMixin

    if admin.sortable_by is not None and name not in admin.sortable_by:
        return True
    return isinstance(admin, CounterAdminMixin)


def _without_sign(path: object) -> object:
    """Return a lookup path without the sign that the admin allows before it."""
    return path.lstrip("-^=@") if isinstance(path, str) else path


def check_renamed_models(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W008 if a model with counters was renamed: counters are named after the model."""
    for field in counter_fields():
        options = field.origin._meta
        old = _old_names(options.app_label).get(str(options.model_name))
        if field.subject is None and old is not None:
            subject = f"{options.app_label}.{old}.{{pk}}.{field.name}"
            yield Warning(
                f"Its model was called {old} before. Counters from that time are not found under "
                "the new name.",
                hint=f"Set CounterField(subject={subject!r}) to keep them, or "
                f"subject={field.template()!r} if there are none.",
                obj=field,
                id="django_nats.W008",
            )


def _old_names(app_label: str) -> dict[str, str]:
    """Return the original names of models that an app's migrations rename, by their names now."""
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
        return  # the app has no migrations
    for each in sorted(each.name for each in iter_modules(getattr(module, "__path__", ()))):
        migration = getattr(import_module(f"{package}.{each}"), "Migration", None)
        yield from getattr(migration, "operations", ())


CHECKS = (
    check_aliases,
    check_snapshots,
    check_subjects,
    check_primary_keys,
    check_parents,
    check_relations,
    check_admin_queries,
    check_admin_sorting,
)
DEPLOY = (check_renamed_models,)
"""The checks that only ``check --deploy`` runs."""
