"""``manage.py nats counters prune``: deletes the counters of rows that no longer exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections, models

from ...client import drivers
from ...client.counters.stream import CounterStream
from ...client.counters.totals import text_of_subject
from ...client.protocol import timestamps
from ...client.streams.scan import Delivered, last_messages
from ...counters.collection import Counters
from ...counters.fields import CounterField
from ...counters.primary_keys import target_of
from ...printable import counted, duration
from ..progress import Progress
from ..subcommand import Subcommand
from .asking import ask, name_as_written
from .rows import add_rows, database_of, fields_of, rows_in_one_query, rows_of

DEFAULT_IDLE_S = 600


class Prune(Subcommand):
    """The subcommand ``prune``.

    It looks only at subjects of installed models' counters. A counter that is changed after it was
    listed is kept, with its whole total.
    """

    name = "prune"
    help = "Remove the counters of rows that no longer exist."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the models or fields, --database, --dry-run, --idle and --empty-tables."""
        add_rows(parser, "Only these models or fields. Default: all.")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Show what would be removed, without removing it.",
        )
        parser.add_argument(
            "--idle",
            type=float,
            default=DEFAULT_IDLE_S,
            metavar="SECONDS",
            help="Leave alone counters that were changed in the last SECONDS, since their rows may "
            f"not be committed yet. Default: {DEFAULT_IDLE_S}.",
        )
        parser.add_argument(
            "--empty-tables",
            action="store_true",
            help="Also prune if a table has no rows at all. Without this option, that is an error.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        """Prune the counters. Raises CommandError on a mistake, such as a wrong database."""
        fields = fields_of(options["labels"])
        if not fields:
            raise CommandError("No model has a CounterField.")
        # All databases are checked before anything is removed.
        databases = {field: database_of(field.origin, options["database"]) for field in fields}
        for field, database in databases.items():
            self._prune(field, database, options)

    def _prune(self, field: CounterField, database: str, options: Mapping[str, Any]) -> None:
        counters = Counters(field.alias)
        if counters.settings.stream.sources:
            raise CommandError(
                f'{field}: NATS_COUNTERS["{field.alias}"] is the sum of its SOURCES. Nothing can '
                "be removed from it."
            )
        document = drivers.run(counters.session, counters.stream.stream.opening.info())
        if document is None:
            self.stdout.write(f"{field}: no counters yet")
            return
        now = timestamps.epoch(document["ts"].encode())
        search = _OrphanSearch(field, database, unchanged_since=now - options["idle"])
        subjects = f"{search.prefix}{field.counter_filter(using=database)}"
        listing = last_messages(counters.stream.stream, subjects, headers_only=True)
        removed = 0
        with Progress(self.stderr, str(field), None, options) as progress:
            for batch in drivers.iterate(counters.session, listing):
                gone = search.without_row(batch)
                if gone and search.table_is_empty and not options["empty_tables"]:
                    raise CommandError(
                        f"{field}: the database {database!r} has no rows of "
                        f"{field.origin._meta.label}. If that is right, add --empty-tables."
                    )
                if gone and not options["dry_run"]:
                    ask(field.alias, CounterStream.purge, list(gone), gone)
                removed += len(gone)
                progress.advance(len(batch))
                if options["verbosity"] > 1:
                    for subject in gone:
                        self.stdout.write(f"  {name_as_written(subject)}")
        done = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{field}: {counted(search.seen, 'counter')}, {removed:,} {done}")
        if search.recent:
            self.stdout.write(
                f"  {counted(search.recent, 'counter')} not looked at, changed in the last "
                f"{duration(options['idle'])}: --idle SECONDS chooses this time"
            )


class _OrphanSearch:
    """A search for the counters of a field that have no row in a database."""

    def __init__(self, field: CounterField, database: str, *, unchanged_since: float) -> None:
        self.prefix = f"{Counters(field.alias).settings.stream.prefix}."
        self.seen = self.recent = 0
        self._field = field
        self._database = database
        self._unchanged_since = unchanged_since
        self._rows = rows_of(field.origin, database)

    @property
    def table_is_empty(self) -> bool:
        return not self._rows.exists()

    def without_row(self, batch: Sequence[Delivered]) -> dict[str, int]:
        """Return the counters that may be removed, by subject, with their sequences."""
        keys: list[Any] = []
        sequences: dict[str, int] = {}
        for message in batch:
            subject = text_of_subject(message.reply.subject).removeprefix(self.prefix)
            key = self._field.pk_of(subject, using=self._database)
            if key is None:
                continue  # the wildcard matches it, but it is not a counter of this field
            self.seen += 1
            if message.stored <= self._unchanged_since:
                sequences[subject] = message.sequence
                if self._fits(key):
                    keys.append(key)
            else:
                self.recent += 1
        for subject in self._with_row(keys):
            sequences.pop(subject, None)
        return sequences

    def _fits(self, key: Any) -> bool:
        """Return whether the columns of the primary key can hold a key's numbers.

        Otherwise there is no row, and SQLite refuses the query.
        """
        operations = connections[self._database].ops
        values = key if isinstance(key, tuple) else (key,)
        for field, value in zip(self._field.origin._meta.pk_fields, values, strict=True):
            target = target_of(field)
            if isinstance(target, models.IntegerField) and isinstance(value, int):
                low, high = operations.integer_field_range(target.get_internal_type())
                if (low is not None and value < low) or (high is not None and value > high):
                    return False
        return True

    def _with_row(self, keys: Sequence[Any]) -> set[str]:
        """Return the subjects of those rows with these keys that exist."""
        # Subjects, since a key read from a subject may have another type than the row's own.
        size = rows_in_one_query(self._database, [self._field.origin._meta.pk], len(keys))
        found: set[str] = set()
        for start in range(0, len(keys), size):
            rows = self._rows.filter(pk__in=keys[start : start + size])
            for key in rows.values_list("pk", flat=True):
                found.add(self._field.counter_subject(key, using=self._database))
        return found
