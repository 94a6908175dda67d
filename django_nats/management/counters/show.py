"""``manage.py nats counters show``: shows counters by name, and the parts of sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...client.counters.digits import text_of
from ...client.counters.stream import CounterStream
from ...counters.collection import Counters
from ...exceptions import Unreadable
from ..subcommand import Subcommand
from .asking import add_alias, ask, subject_named


class Show(Subcommand):
    """The subcommand ``show``.

    It reads all counters in one round trip. If the alias has SOURCES, each counter takes one more.
    """

    name = "show"
    silent_at_verbosity_0 = False
    help = "Show counters by name."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the names and --alias."""
        parser.add_argument(
            "names",
            nargs="+",
            metavar="name",
            help=r"The name of a counter. Dots separate tokens. Write a dot within a token as \..",
        )
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show the counters. One that cannot be read is shown with the error."""
        alias = options["alias"]
        subjects = {name: subject_named(name) for name in options["names"]}
        totals = ask(alias, CounterStream.stored, list(subjects.values()))
        for name, subject in subjects.items():
            try:
                self.stdout.write(f"{name}: {_text(alias, subject, totals)}")
                for source, part in sorted(_sources(alias, subject).items()):
                    self.stdout.write(f"  {source}: {text_of(part, ',')}")
            except Unreadable as error:
                self.stdout.write(f"{name}: {error}", self.style.ERROR)


def _text(alias: str, subject: str, totals: Mapping[str, int | None]) -> str:
    """Return a counter's total as text. Raises Unreadable, with the reason, if it has none."""
    if subject not in totals:
        return "never counted, or reset"
    total = totals[subject]
    return text_of(ask(alias, CounterStream.value, subject) if total is None else total, ",")


def _sources(alias: str, subject: str) -> dict[str, int]:
    if not Counters(alias).settings.stream.sources:
        return {}
    return ask(alias, CounterStream.sources, subject)
