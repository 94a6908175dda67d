"""``manage.py nats counters prune``: away with the counters of rows that are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...client import bridge, wire
from ...client.consumer import Met, last_messages
from ...client.counters import CounterStream
from ...counters.collection import Counters
from ...counters.fields import CounterField
from ..progress import Progress
from ..subcommand import Subcommand
from .asking import ask, name_as_written
from .rows import add_rows, database_of, fields_of, rows_in_one_query, rows_of

DEFAULT_IDLE = 600


class Prune(Subcommand):
    """Only looks at counters of models that there are, by their subjects; all others are left.

    A counter is removed as it was listed: one that somebody counts on meanwhile stays, total and
    all.
    """

    name = "prune"
    help = "Remove the counters of rows that no longer exist."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        add_rows(parser, "Only these models, or fields; all unless given.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would be removed, and remove nothing."
        )
        parser.add_argument(
            "--idle",
            type=float,
            default=DEFAULT_IDLE,
            metavar="SECONDS",
            help="Leave alone what was changed within so many seconds, since its row may not be "
            f"committed yet; {DEFAULT_IDLE} unless given.",
        )
        parser.add_argument(
            "--empty-tables",
            action="store_true",
            help="Prune where a table has no row at all, too, instead of taking it for a mistake.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        fields = fields_of(options["labels"])
        if not fields:
            raise CommandError("No model has a CounterField.")
        # All looked at before anything is done.
        databases = {field: database_of(field.origin, options["database"]) for field in fields}
        for field, database in databases.items():
            self._prune(field, database, options)

    def _prune(self, field: CounterField, database: str, options: Mapping[str, Any]) -> None:
        counters = Counters(field.alias)
        if counters.settings.stream.sources:
            raise CommandError(
                f'{field}: NATS_COUNTERS["{field.alias}"] is the sum of its SOURCES, from which '
                "nothing can be removed."
            )
        document = ask(field.alias, CounterStream.info)
        if document is None:
            self.stdout.write(f"{field}: no counters yet")
            return
        now = wire.epoch(document["ts"].encode())
        pruning = _Pruning(field, database, unchanged_since=now - options["idle"])
        subjects = f"{pruning.prefix}{field.counter_filter(using=database)}"
        listing = last_messages(counters.stream, subjects, headers_only=True)
        removed = 0
        with Progress(self.stderr, str(field), None, options) as progress:
            for batch in bridge.iterate(counters.session, listing):
                gone = pruning.without_row(batch)
                if gone and pruning.table_is_empty and not options["empty_tables"]:
                    raise CommandError(
                        f"{field}: the database {database!r} has no {field.origin._meta.label} at "
                        "all. If that is right, say --empty-tables."
                    )
                if gone and not options["dry_run"]:
                    ask(field.alias, CounterStream.purge, list(gone), gone)
                removed += len(gone)
                progress.advance(len(batch))
                if options["verbosity"] > 1:
                    for subject in gone:
                        self.stdout.write(f"  {name_as_written(subject)}")
        done = "would be removed" if options["dry_run"] else "removed"
        self.stdout.write(f"{field}: {pruning.seen:,} counters, {removed:,} {done}")


class _Pruning:
    """Which counters of a field have no row in a database."""

    def __init__(self, field: CounterField, database: str, *, unchanged_since: float) -> None:
        self.prefix = f"{Counters(field.alias).settings.stream.prefix}."
        self.seen = 0
        self._field = field
        self._database = database
        self._unchanged_since = unchanged_since
        self._rows = rows_of(field.origin, database)

    @property
    def table_is_empty(self) -> bool:
        return not self._rows.exists()

    def without_row(self, batch: Sequence[Met]) -> dict[str, int]:
        """The sequences of those counters, by subject, that may be removed."""
        keys: dict[str, Any] = {}
        sequences: dict[str, int] = {}
        for met in batch:
            subject = met.reply.subject.decode().removeprefix(self.prefix)
            key = self._field.pk_of(subject, using=self._database)
            if key is None or self._field.counter_subject(key, using=self._database) != subject:
                continue  # matched by the wildcard, but no row of this model has it
            self.seen += 1
            if met.stored <= self._unchanged_since:
                keys[subject] = key
                sequences[subject] = met.sequence
        existing = self._existing(list(keys.values()))
        return {subject: sequences[subject] for subject, key in keys.items() if key not in existing}

    def _existing(self, keys: Sequence[Any]) -> set[Any]:
        most = rows_in_one_query(self._database, [self._field.origin._meta.pk], len(keys))
        found: set[Any] = set()
        for start in range(0, len(keys), most):
            rows = self._rows.filter(pk__in=keys[start : start + most])
            found.update(rows.values_list("pk", flat=True))
        return found
