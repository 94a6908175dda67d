"""``manage.py nats counters snapshot``: totals into columns, for queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections, models

from ...client.counters import CounterStream
from ...counters.fields import CounterField
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
    """For each batch of rows one question to the counters, and one UPDATE of what differs.

    Every batch is committed by itself: what a broken run has done is not done again by the next.
    Signals are not sent, and other columns not touched.
    """

    name = "snapshot"
    help = "Copy the totals of counters into the columns that CounterField(snapshot=…) names."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        add_rows(parser, "Only these models, or fields; all that have a snapshot unless given.")
        parser.add_argument(
            "--zero",
            action="store_true",
            help="Write 0, too, for rows without a counter: never counted, or reset.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        by_model: dict[type[models.Model], list[CounterField]] = {}
        for field in fields_of(options["labels"], with_snapshot=True):
            column_of(field)
            by_model.setdefault(field.origin, []).append(field)
        if not by_model:
            raise CommandError('No model has a column for totals: see CounterField(snapshot="…").')
        unfit = 0
        for model, fields in by_model.items():
            database = database_of(model, options["database"])
            copying = _Copying(model, fields, database, zero=options["zero"])
            rows = rows_of(model, database).only(*copying.columns)
            with Progress(self.stderr, model._meta.label, rows.count(), options) as progress:
                for batch in batches(rows, copying.batch_size):
                    copying.copy(batch)
                    progress.advance(len(batch))
            self._tell(copying)
            unfit += len(copying.unfit)
        if unfit:
            raise CommandError(f"{unfit:,} totals do not fit into their columns.")

    def _tell(self, copying: _Copying) -> None:
        names = ", ".join(copying.columns)
        self.stdout.write(
            f"{copying.model._meta.label}: {names}: {copying.seen:,} rows, "
            f"{copying.written:,} written"
        )
        if copying.uncounted:
            self.stdout.write(
                f"  {copying.uncounted:,} columns left as they are, for there is no counter: "
                "`manage.py nats counters seed` makes one of a column, --zero writes 0"
            )
        for problem in copying.unfit[:3]:
            self.stdout.write(self.style.ERROR(f"  {problem}"))


class _Copying:
    """The way of one model's totals into its columns, and what came of it."""

    def __init__(
        self,
        model: type[models.Model],
        fields: Sequence[CounterField],
        database: str,
        *,
        zero: bool,
    ) -> None:
        self.model = model
        self.seen = self.written = self.uncounted = 0
        self.unfit: list[str] = []
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
        # As Django counts for a bulk_update: each row's key twice.
        parameters = [model._meta.pk, model._meta.pk, *columns.values()]
        self.batch_size = rows_in_one_query(database, parameters, BATCH)

    def copy(self, batch: Sequence[models.Model]) -> None:
        changed = [row for row, totals in self._totals(batch) if self._apply(row, totals)]
        if changed:
            rows_of(self.model, self._database).bulk_update(changed, self.columns)
        self.seen += len(batch)
        self.written += len(changed)

    def _totals(
        self, batch: Sequence[models.Model]
    ) -> list[tuple[models.Model, dict[CounterField, int | None]]]:
        """The rows, each with the total of every field; None where there is no counter."""
        totals: dict[tuple[str, str], int] = {}
        subjects = {
            (row.pk, field): (field.alias, field.counter_subject(row.pk, using=self._database))
            for row in batch
            for field in self._targets
        }
        for alias in {field.alias for field in self._targets}:
            wanted = [subject for each, subject in subjects.values() if each == alias]
            found = ask(alias, CounterStream.stored, wanted)
            totals.update(((alias, subject), total) for subject, total in found.items())
        return [
            (row, {field: totals.get(subjects[row.pk, field]) for field in self._targets})
            for row in batch
        ]

    def _apply(self, row: models.Model, totals: Mapping[CounterField, int | None]) -> bool:
        """Put totals into a row's columns; whether any differs from what is there."""
        differs = False
        for field, column in self._targets.items():
            total, before = totals[field], getattr(row, column)
            if total is None and before and not self._zero:
                self.uncounted += 1
                continue
            after = total or 0
            if after == (before or 0) and (total is None or before is not None):
                continue
            low, high = self._ranges[field]
            if not (low is None or low <= after) or not (high is None or after <= high):
                self.unfit.append(f"{field} of {row.pk!r} is {after}: too much for {column}")
                continue
            setattr(row, column, after)
            differs = True
        return differs
