"""The rows that have counters: how command lines name them, and how they are read in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, connections, models, router

from ...counters.fields import CounterField, counter_fields


def add_rows(parser: CommandParser, help: str) -> None:
    """Declare the labels of models and fields, and --database."""
    parser.add_argument("labels", nargs="*", metavar="app.Model[.field]", help=help)
    parser.add_argument(
        "--database",
        help="The alias of the database with the rows. Default: the one they are written to.",
    )


def fields_of(labels: Sequence[str], *, with_snapshot: bool = False) -> list[CounterField]:
    """Return the counter fields that labels name, or all if there are no labels.

    A label is "app.Model" or "app.Model.field". ``with_snapshot`` leaves out fields without a
    snapshot, unless a label names the field itself. Raises CommandError if a label is wrong.
    """
    if not labels:
        return [each for each in counter_fields() if each.snapshot or not with_snapshot]
    found = []
    for label in labels:
        app, _, rest = label.partition(".")
        name, _, field_name = rest.partition(".")
        try:
            model = apps.get_model(app, name)
        except (LookupError, ValueError) as error:
            raise CommandError(f"{label}: there is no such model ({error}).") from error
        fields = {each.name: each for each in counter_fields(model)}
        if not fields:
            raise CommandError(f"{label}: {model._meta.label} has no CounterField.")
        if not field_name:
            chosen = [each for each in fields.values() if each.snapshot or not with_snapshot]
            if not chosen:
                raise CommandError(
                    f"{label}: no counter has a column. Name one with CounterField(snapshot=…)."
                )
            found += chosen
        elif field_name in fields:
            found.append(fields[field_name])
        else:
            raise CommandError(
                f"{label}: {field_name} is not a counter of {model._meta.label}. Its counters are "
                f"{', '.join(fields)}."
            )
    # A child of a model shares its parent's fields, so that two labels may name one field.
    return list({(each.origin, each.name): each for each in found}.values())


def column_of(field: CounterField, name: str | None = None) -> models.Field[Any, Any]:
    """Return the column of a counter: the named one, or its snapshot.

    Raises CommandError if it is not an integer column.
    """
    name = name or field.snapshot
    if name is None:
        raise CommandError(f'{field} has no column. Name one with CounterField(snapshot="…").')
    try:
        column = field.origin._meta.get_field(name)
    except FieldDoesNotExist:
        column = None
    if not isinstance(column, models.IntegerField):
        raise CommandError(f"{field}: {field.origin._meta.label} has no integer column {name!r}.")
    return column


def database_of(model: type[models.Model], alias: str | None, columns: Iterable[str] = ()) -> str:
    """Return the alias of the database with a model's rows.

    Raises CommandError if the rows, or these columns of theirs, cannot be read.
    """
    database = alias or router.db_for_write(model)
    if database not in connections:
        raise CommandError(f"DATABASES has no alias {database!r}, only {', '.join(connections)}.")
    try:
        list(rows_of(model, database).order_by().values_list("pk", *columns)[:1])
    except DatabaseError as error:
        raise CommandError(
            f"{model._meta.label}: its rows cannot be read from the database {database!r} "
            f"({error}). Run migrations, or name another database with --database."
        ) from error
    return database


def rows_of(model: type[models.Model], database: str) -> models.QuerySet[models.Model]:
    """Return all rows of a model. Managers, even the base manager, may hide some."""
    return models.QuerySet(model, using=database)


def batches(rows: models.QuerySet[models.Model], size: int) -> Iterator[list[models.Model]]:
    """Yield the rows in lists of at most ``size``, by primary key.

    Each list is a query of its own, so that no cursor stays open between them.
    """
    rows = rows.order_by("pk")
    batch = list(rows[:size])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:size]) if len(batch) == size else []


def rows_in_one_query(database: str, fields: Sequence[models.Field[Any, Any]], most: int) -> int:
    """Return how many rows one query can name, with a parameter for each field, at most ``most``.

    Databases limit the number of parameters in a query.
    """
    limit = connections[database].ops.bulk_batch_size(fields, range(most))
    return max(1, min(most, limit))
