"""``manage.py nats counters top``: the largest counters that match a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ... import keys
from ...client.counters import CounterStream
from ..subcommand import Subcommand
from .asking import add_alias, ask, name_as_written


class Top(Subcommand):
    """Reads all that match. Those that another program counts under no name are left out."""

    name = "top"
    help = "Show the largest counters whose names match a pattern."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument(
            "pattern",
            nargs="?",
            default=">",
            help='A name in which a token * is any one, and a last token > one or more: "clicks.>".'
            " All unless given.",
        )
        parser.add_argument("-n", type=int, default=20, help="How many; 20 unless given.")
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        if options["n"] < 1:
            raise CommandError(f"-n is {options['n']}: at least one can be shown.")
        subject_filter = keys.counter_filter(options["pattern"])
        totals = ask(options["alias"], CounterStream.matching, subject_filter)
        named = (
            (total, name)
            for subject, total in totals.items()
            if (name := name_as_written(subject)) is not None
        )
        largest = nsmallest(options["n"], named, key=lambda each: (-each[0], each[1]))
        if not largest:
            raise CommandError(f"No counter matches {options['pattern']}.")
        width = max(len(f"{total:,}") for total, _ in largest)
        for total, name in largest:
            self.stdout.write(f"{total:{width},}  {name}")
