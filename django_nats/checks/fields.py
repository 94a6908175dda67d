"""The checks of counter fields: Django does not check what has no column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RenameModel

from ..conf.counters import counter_aliases
from ..counters import CounterField, counter_fields


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


CHECKS = (check_aliases, check_snapshots, check_subjects)
DEPLOY = (check_renamed_models,)
"""Those that only ``check --deploy`` runs."""
