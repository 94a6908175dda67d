"""``manage.py nats counters seed``: totals from a column, a CSV file or Redis into counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import models

from ...counters.fields import CounterField
from ..progress import Progress
from ..subcommand import Subcommand
from .asking import BATCH, add_alias
from .files import totals_of_csv
from .redis_keys import RedisKeys
from .rows import add_rows, batches, column_of, database_of, fields_of, rows_of
from .seeding import Seeding, Total, once


class Seed(Subcommand):
    """A counter that has a value is left alone, so that a second run does nothing."""

    name = "seed"
    help = (
        "Give counters the totals they had elsewhere: in a column, a CSV file, or Redis. Those "
        "that have a value are left alone."
    )

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        add_rows(parser, "From the columns that CounterField(snapshot=…) names.")
        parser.add_argument("--column", help="From this integer column; with one field.")
        parser.add_argument(
            "--csv", metavar="FILE", help="From lines of name,total; - for standard input."
        )
        parser.add_argument(
            "--redis", metavar="URL", help="From the integers of a Redis server; needs redis-py."
        )
        parser.add_argument(
            "--match", metavar="GLOB", help='The keys in Redis, such as "views:*"; * stands for any'
        )
        parser.add_argument(
            "--name",
            metavar="TEMPLATE",
            help='What a key becomes: "page.{1}.views", where {1} is what the first * of --match '
            "stands for, as one token. Unless given, the key with dots for colons.",
        )
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="Bring those that have a value to the total as well.",
        )
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        given = [each for each in ("labels", "csv", "redis") if options[each]]
        if len(given) != 1:
            raise CommandError("Seed from one of: app.Model[.field], --csv FILE, --redis URL.")
        if (options["match"] is None) != (options["redis"] is None):
            raise CommandError("--redis and --match go together.")
        if options["name"] is not None and options["redis"] is None:
            raise CommandError("--name goes with --redis.")
        if options["labels"]:
            self._from_columns(options)
        elif options["column"] is not None:
            raise CommandError("--column goes with app.Model.field.")
        elif options["csv"]:
            totals = once(totals_of_csv(options["csv"]))
            self._seed(options["csv"], options["alias"], totals, None, options)
        else:
            keys = RedisKeys(options["redis"], options["match"], options["name"])
            self._seed(options["match"], options["alias"], once(keys.totals()), None, options)
            if keys.other:
                self.stdout.write(
                    self.style.WARNING(
                        f"  {keys.other:,} keys hold no integer, and were passed over: "
                        f"{', '.join(keys.examples)}"
                    )
                )

    def _from_columns(self, options: Mapping[str, Any]) -> None:
        named = options["column"] is not None
        fields = fields_of(options["labels"], with_snapshot=not named)
        if named and len(fields) > 1:
            names = ", ".join(map(str, fields))
            raise CommandError(f"--column goes with one field, and here are {names}.")
        columns = {field: column_of(field, options["column"]) for field in fields}
        for field, column in columns.items():
            database = database_of(field.origin, options["database"])
            rows = rows_of(field.origin, database).only(column.attname)
            # A row with nothing to seed need not be asked about.
            rows = rows.exclude(**{column.attname: 0}).exclude(
                **{f"{column.attname}__isnull": True}
            )
            totals = _totals_of_column(field, column.attname, rows, database)
            self._seed(f"{field} from {column.name}", field.alias, totals, rows.count(), options)

    def _seed(
        self,
        what: str,
        alias: str,
        totals: Iterator[Total],
        count: int | None,
        options: Mapping[str, Any],
    ) -> None:
        seeding = Seeding(alias, overwrite=options["overwrite"])
        try:
            with Progress(self.stderr, what, count, options) as progress:
                seeding.seed(totals, progress)
        finally:
            self.stdout.write(
                f"{what}: {seeding.seeded:,} seeded, {seeding.overwritten:,} overwritten, "
                f"{seeding.right:,} right already"
            )
            if seeding.left:
                self.stdout.write(
                    f"  {seeding.left:,} left alone, for they have a value already: --overwrite "
                    "brings them to the total"
                )


def _totals_of_column(
    field: CounterField, column: str, rows: models.QuerySet[models.Model], database: str
) -> Iterator[Total]:
    for batch in batches(rows, BATCH):
        for row in batch:
            subject = field.counter_subject(row.pk, using=database)
            yield Total(subject, getattr(row, column), f"row {row.pk!r}")
