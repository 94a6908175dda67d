"""``manage.py nats counters snapshot``: copies totals to columns, for queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections, models

from ...client.counters.digits import text_of
from ...client.counters.stream import CounterStream
from ...counters.fields import CounterField
from ...exceptions import InvalidKey
from ...printable import counted
from ..progress import Progress
from ..subcommand import Subcommand
from .asking import BATCH, ask
from .rows import (
    add_rows,
    batches,
    column_of,
    database_of,
    fields_of,
    rows_in_one_query,
    rows_of,
)


class Snapshot(Subcommand):
    """The subcommand ``snapshot``.

    It reads the counters of each batch of rows in one round trip, and updates the rows that differ.
    Each batch is committed by itself, so the next run completes one that was interrupted. Signals
    are not sent, and other columns are not changed.
    """

    name = "snapshot"
    help = "Copy the totals of counters into the columns that CounterField(snapshot=…) names."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the models or fields, --database and --zero."""
        add_rows(parser, "Only these models or fields. Default: all fields that have a snapshot.")
        parser.add_argument(
            "--zero",
            action="store_true",
            help="Also write 0 for rows without a counter, which was never changed, or was reset.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        """Copy the totals. Raises CommandError if one could not be copied."""
        by_model: dict[type[models.Model], list[CounterField]] = {}
        for field in fields_of(options["labels"], with_snapshot=True):
            column_of(field)
            by_model.setdefault(field.origin, []).append(field)
        if not by_model:
            raise CommandError('No counter has a column. Name one with CounterField(snapshot="…").')
        failures = 0
        for model, fields in by_model.items():
            columns = [column_of(field).attname for field in fields]
            database = database_of(model, options["database"], columns)
            copying = _Copy(model, fields, database, zero=options["zero"])
            rows = rows_of(model, database).only(*copying.columns)
            with Progress(self.stderr, model._meta.label, rows.count(), options) as progress:
                for batch in batches(rows, copying.batch_size):
                    copying.copy(batch)
                    progress.advance(len(batch))
            self._report(copying)
            failures += len(copying.failures)
        if failures:
            raise CommandError(f"{counted(failures, 'total')} could not be copied to a column.")

    def _report(self, copying: _Copy) -> None:
        names = ", ".join(copying.columns)
        self.stdout.write(
            f"{copying.model._meta.label}: {names}: {counted(copying.seen, 'row')}, "
            f"{copying.written:,} written"
        )
        if copying.uncounted:
            self.stdout.write(
                f"  {counted(copying.uncounted, 'column')} left unchanged, without a counter: "
                "`manage.py nats counters seed` makes one from the column, --zero writes 0"
            )
        if copying.nameless:
            self.stdout.write(
                f"  {counted(copying.nameless, 'column')} left unchanged, since the row's primary "
                f"key cannot be part of a counter's name: {copying.nameless_example}",
                self.style.WARNING,
            )
        for problem in copying.failures[:3]:
            self.stdout.write(f"  {problem}", self.style.ERROR)


class _Copy:
    """The copying of one model's totals to its columns, with counts of the outcomes."""

    def __init__(
        self,
        model: type[models.Model],
        fields: Sequence[CounterField],
        database: str,
        *,
        zero: bool,
    ) -> None:
        self.model = model
        self.seen = self.written = self.uncounted = self.nameless = 0
        self.nameless_example = ""
        self.failures: list[str] = []
        self._database = database
        self._zero = zero
        columns = {field: column_of(field) for field in fields}
        self._targets = {field: column.attname for field, column in columns.items()}
        self.columns = list(self._targets.values())
        operations = connections[database].ops
        self._ranges = {
            field: operations.integer_field_range(column.get_internal_type())
            for field, column in columns.items()
        }
        # As bulk_update() counts parameters: the primary key of each row twice.
        parameters = [model._meta.pk, model._meta.pk, *columns.values()]
        self.batch_size = rows_in_one_query(database, parameters, BATCH)

    def copy(self, batch: Sequence[models.Model]) -> None:
        """Copy the totals of a batch of rows."""
        changed = [row for row, totals in self._totals(batch) if self._apply(row, totals)]
        if changed:
            rows_of(self.model, self._database).bulk_update(changed, self.columns)
        self.seen += len(batch)
        self.written += len(changed)

    def _totals(
        self, batch: Sequence[models.Model]
    ) -> list[tuple[models.Model, dict[CounterField, int | None]]]:
        """Return the rows, each with the totals of its fields.

        A total is None if there is no counter. A field whose counter cannot be read, or cannot
        exist, is left out.
        """
        totals: dict[tuple[str, str], int | None] = {}
        subjects = self._subjects(batch)
        for alias in {field.alias for field in self._targets}:
            wanted = [subject for each, subject in subjects.values() if each == alias]
            found = ask(alias, CounterStream.stored, wanted)
            totals.update(((alias, subject), total) for subject, total in found.items())
        found_of_rows = []
        for row in batch:
            found_of_row: dict[CounterField, int | None] = {}
            for field in self._targets:
                counter = subjects.get((row.pk, field))
                if counter is None:
                    continue
                if counter in totals and totals[counter] is None:
                    self.failures.append(f"{field} of {row.pk!r}: its counter cannot be read")
                else:
                    found_of_row[field] = totals.get(counter)
            found_of_rows.append((row, found_of_row))
        return found_of_rows

    def _subjects(
        self, batch: Sequence[models.Model]
    ) -> dict[tuple[Any, CounterField], tuple[str, str]]:
        """Return the aliases and subjects of the counters, by primary key and field."""
        found = {}
        for row in batch:
            for field in self._targets:
                try:
                    subject = field.counter_subject(row.pk, using=self._database)
                except InvalidKey as error:
                    self.nameless += 1
                    self.nameless_example = str(error)
                else:
                    found[row.pk, field] = field.alias, subject
        return found

    def _apply(self, row: models.Model, totals: Mapping[CounterField, int | None]) -> bool:
        """Set a row's columns to its totals. Return True if that changes the row."""
        differs = False
        for field, total in totals.items():
            column = self._targets[field]
            before = getattr(row, column)
            if total is None and before and not self._zero:
                self.uncounted += 1
                continue
            after = total or 0
            if after == (before or 0) and (total is None or before is not None):
                continue
            low, high = self._ranges[field]
            if not (low is None or low <= after) or not (high is None or after <= high):
                text = text_of(after)
                self.failures.append(f"{field} of {row.pk!r} is {text}, too large for {column}")
                continue
            setattr(row, column, after)
            differs = True
        return differs
