"""``manage.py nats counters seed``: copies totals of a column, a CSV file or Redis to counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import models

from ...counters.fields import CounterField
from ...exceptions import InvalidKey
from ...printable import counted
from ..progress import Progress
from ..subcommand import Subcommand
from .asking import BATCH, add_alias
from .csv_files import totals_of_csv
from .redis_keys import RedisKeys
from .rows import add_rows, batches, column_of, database_of, fields_of, rows_of
from .seeding import Seeding, Total, once

_MAX_EXAMPLES = 3


class Seed(Subcommand):
    """The subcommand ``seed``.

    It leaves counters alone that have a value, so that a second run does nothing.
    """

    name = "seed"
    help = (
        "Give counters the totals they had elsewhere: in a column, a CSV file or Redis. Counters "
        "that have a value are left alone."
    )

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the sources of totals, --overwrite and --alias."""
        add_rows(parser, "Seed from the columns that CounterField(snapshot=…) names.")
        parser.add_argument("--column", help="Seed one field from this integer column.")
        parser.add_argument(
            "--csv", metavar="FILE", help="Seed from lines of name,total; - is standard input."
        )
        parser.add_argument(
            "--redis",
            metavar="URL",
            help="Seed from the integers of a Redis server; needs redis-py.",
        )
        parser.add_argument(
            "--match",
            metavar="GLOB",
            help='The keys in Redis, such as "views:*".',
        )
        parser.add_argument(
            "--name",
            metavar="TEMPLATE",
            help='The name that a key becomes, such as "page.{1}.views". {1} is what the first * '
            "of --match stands for, as one token. Default: the key with dots for colons.",
        )
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="Also bring counters that have a value to the total.",
        )
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Seed from one source. Raises CommandError if options contradict each other."""
        given = [each for each in ("labels", "csv", "redis") if options[each]]
        if len(given) != 1:
            raise CommandError("Name one source: app.Model[.field], --csv FILE or --redis URL.")
        if (options["match"] is None) != (options["redis"] is None):
            raise CommandError("--redis and --match must be given together.")
        if options["name"] is not None and options["redis"] is None:
            raise CommandError("--name needs --redis.")
        if options["labels"]:
            self._from_columns(options)
        elif options["column"] is not None:
            raise CommandError("--column needs app.Model.field.")
        elif options["csv"]:
            totals = once(totals_of_csv(options["csv"]))
            self._seed(options["csv"], options["alias"], totals, None, options)
        else:
            keys = RedisKeys(options["redis"], options["match"], options["name"])
            self._seed(options["match"], options["alias"], once(keys.totals()), None, options)
            if keys.skipped:
                self.stdout.write(
                    f"  {counted(keys.skipped, 'key')} skipped, whose value is no integer: "
                    f"{', '.join(keys.examples)}",
                    self.style.WARNING,
                )

    def _from_columns(self, options: Mapping[str, Any]) -> None:
        named = options["column"] is not None
        fields = fields_of(options["labels"], with_snapshot=not named)
        if named and len(fields) > 1:
            names = ", ".join(map(str, fields))
            raise CommandError(f"--column needs one field, but there are {names}.")
        columns = {field: column_of(field, options["column"]) for field in fields}
        for field, column in columns.items():
            database = database_of(field.origin, options["database"], [column.attname])
            rows = rows_of(field.origin, database).only(column.attname)
            # For 0 and NULL there is nothing to seed.
            rows = rows.exclude(**{column.attname: 0}).exclude(
                **{f"{column.attname}__isnull": True}
            )
            nameless: list[str] = []
            totals = _totals_of_column(field, column.attname, rows, database, nameless)
            self._seed(f"{field} from {column.name}", field.alias, totals, rows.count(), options)
            if nameless:
                self.stdout.write(
                    f"  {len(nameless):,} rows left out, since their primary keys cannot be part "
                    f"of a counter's name: {nameless[0]}",
                    self.style.WARNING,
                )

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
        except Exception:
            if seeding.handled:
                self._report(what, seeding)
            raise
        self._report(what, seeding)

    def _report(self, what: str, seeding: Seeding) -> None:
        self.stdout.write(
            f"{what}: {seeding.seeded:,} seeded, {seeding.overwritten:,} overwritten, "
            f"{seeding.correct:,} already correct"
        )
        if seeding.left_alone:
            self.stdout.write(
                f"  {seeding.left_alone:,} left alone, with another value: --overwrite brings "
                "them to the total"
            )
        if seeding.unreadable:
            self.stdout.write(
                f"  {len(seeding.unreadable):,} left alone, since what is stored is not a "
                f"total: {', '.join(seeding.unreadable[:_MAX_EXAMPLES])}",
                self.style.WARNING,
            )


def _totals_of_column(
    field: CounterField,
    column: str,
    rows: models.QuerySet[models.Model],
    database: str,
    nameless: list[str],
) -> Iterator[Total]:
    """Yield the totals. Append to ``nameless`` what is wrong with rows that have no counter."""
    for batch in batches(rows, BATCH):
        for row in batch:
            try:
                subject = field.counter_subject(row.pk, using=database)
            except InvalidKey as error:
                nameless.append(str(error))
            else:
                yield Total(subject, getattr(row, column), f"row {row.pk!r}")
