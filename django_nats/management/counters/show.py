"""``manage.py nats counters show``: counters by name, and what they are the sum of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...client.counters import CounterStream
from ...counters.collection import Counters
from ..subcommand import Subcommand
from .asking import add_alias, ask, subject_named


class Show(Subcommand):
    """One round trip for all of them; with SOURCES one more for each."""

    name = "show"
    help = "Show counters by name."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument(
            "names",
            nargs="+",
            metavar="name",
            help=r"Dots separate tokens; a dot within one is written \..",
        )
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        alias = options["alias"]
        subjects = {name: subject_named(name) for name in options["names"]}
        totals = ask(alias, CounterStream.stored, list(subjects.values()))
        for name, subject in subjects.items():
            total = totals.get(subject)
            told = "never counted, or reset" if total is None else f"{total:,}"
            self.stdout.write(f"{name}: {told}")
            for source, part in sorted(self._sources(alias, subject).items()):
                self.stdout.write(f"  {source}: {part:,}")

    def _sources(self, alias: str, subject: str) -> dict[str, int]:
        if not Counters(alias).settings.stream.sources:
            return {}
        return ask(alias, CounterStream.sources, subject)
