"""The rows that have counters: by the words of a command line, and in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, connections, models, router

from ...counters.fields import CounterField, counter_fields


def add_rows(parser: CommandParser, help: str) -> None:
    parser.add_argument("labels", nargs="*", metavar="app.Model[.field]", help=help)
    parser.add_argument(
        "--database",
        help="The alias of the database with the rows; the one they are written to unless given.",
    )


def fields_of(labels: Sequence[str], *, with_snapshot: bool = False) -> list[CounterField]:
    """The counter fields of models, or single ones; without labels, all there are.

    ``with_snapshot`` leaves out those without a column, unless one is named itself.
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
            raise CommandError(f"{label}: there is no such model. ({error})") from error
        fields = {each.name: each for each in counter_fields(model)}
        if not fields:
            raise CommandError(f"{label}: {model._meta.label} has no CounterField.")
        if not field_name:
            chosen = [each for each in fields.values() if each.snapshot or not with_snapshot]
            if not chosen:
                raise CommandError(f"{label}: no counter has a column: CounterField(snapshot=…).")
            found += chosen
        elif field_name in fields:
            found.append(fields[field_name])
        else:
            raise CommandError(
                f"{label}: {model._meta.label} counts {', '.join(fields)}, not {field_name}."
            )
    # A child of a model counts in its parent's fields.
    return list({(each.origin, each.name): each for each in found}.values())


def column_of(field: CounterField, name: str | None = None) -> models.Field[Any, Any]:
    """The column beside a counter: the named one, or its snapshot. Raises CommandError."""
    name = name or field.snapshot
    if name is None:
        raise CommandError(f'{field}: it has no column. Name one: CounterField(snapshot="…").')
    try:
        column = field.origin._meta.get_field(name)
    except FieldDoesNotExist:
        column = None
    if not isinstance(column, models.IntegerField):
        raise CommandError(f"{field}: {field.origin._meta.label} has no integer column {name!r}.")
    return column


def database_of(model: type[models.Model], alias: str | None) -> str:
    """The database with a model's rows. Raises CommandError where they cannot be read."""
    database = alias or router.db_for_write(model)
    if database not in connections:
        raise CommandError(f"DATABASES has no alias {database!r}, only {', '.join(connections)}.")
    try:
        rows_of(model, database).exists()
    except DatabaseError as error:
        raise CommandError(
            f"{model._meta.label}: its rows cannot be read from the database {database!r}. Run "
            f"migrations, or name another with --database. ({error})"
        ) from error
    return database


def rows_of(model: type[models.Model], database: str) -> models.QuerySet[models.Model]:
    """All of them: managers, even the base manager, may hide some."""
    return models.QuerySet(model, using=database)


def batches(rows: models.QuerySet[models.Model], size: int) -> Iterator[list[models.Model]]:
    """The rows in lists of at most so many, by primary key. No cursor stays open meanwhile."""
    rows = rows.order_by("pk")
    batch = list(rows[:size])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:size]) if len(batch) == size else []


def rows_in_one_query(database: str, fields: Sequence[models.Field[Any, Any]], most: int) -> int:
    """How many rows a query can name, with the parameters of so many fields for each."""
    limit = connections[database].ops.bulk_batch_size(fields, range(most))
    return max(1, min(most, limit))
