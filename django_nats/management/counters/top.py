"""``manage.py nats counters top``: shows the largest counters that match a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ... import keys
from ...client.counters.digits import text_of
from ...client.counters.stream import CounterStream
from ..subcommand import Subcommand
from .asking import add_alias, ask, name_as_written

_MAX_EXAMPLES = 3


class Top(Subcommand):
    """The subcommand ``top``.

    It reads all counters that match. Counters of other programs, under subjects that are not valid
    names, are left out.
    """

    name = "top"
    silent_at_verbosity_0 = False
    help = "Show the largest counters whose names match a pattern."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the pattern, -n and --alias."""
        parser.add_argument(
            "pattern",
            nargs="?",
            default=">",
            help="A name in which a token * stands for any one token, and a last token > for one "
            'or more, for example "clicks.>". Default: all counters.',
        )
        parser.add_argument("-n", type=int, default=20, help="How many to show. Default: 20.")
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show the counters. Raises CommandError if none matches."""
        if options["n"] < 1:
            raise CommandError(f"-n must be at least 1, not {options['n']}.")
        subject_filter = keys.counter_filter(options["pattern"])
        totals = ask(options["alias"], CounterStream.matching, subject_filter)
        named = {
            name: total
            for subject, total in totals.items()
            if (name := name_as_written(subject)) is not None
        }
        readable = ((total, name) for name, total in named.items() if total is not None)
        largest = nsmallest(options["n"], readable, key=lambda each: (-each[0], each[1]))
        unreadable = sorted(name for name, total in named.items() if total is None)
        if not largest and not unreadable:
            raise CommandError(f"No counter matches {options['pattern']}.")
        texts = [(text_of(total, ","), name) for total, name in largest]
        width = max((len(text) for text, _ in texts), default=0)
        for text, name in texts:
            self.stdout.write(f"{text:>{width}}  {name}")
        if unreadable:
            self.stdout.write(
                f"{len(unreadable):,} left out, since they cannot be read: "
                f"{', '.join(unreadable[:_MAX_EXAMPLES])}",
                self.style.WARNING,
            )
