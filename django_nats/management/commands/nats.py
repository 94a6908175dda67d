"""``manage.py nats``: see the subcommands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import checks
from ...checks.streams import outages_unlogged
from ...exceptions import NatsError
from ..counters import COUNTERS
from ..setup import Setup
from ..status import Status
from ..subcommand import Group, Subcommand

_SUBCOMMANDS = (Setup, Status, COUNTERS)


class Command(BaseCommand):
    help = "Set up and look at what this project keeps on NATS."
    # Not Django's own caches checks, which answer a mistake in CACHES with a traceback.
    requires_system_checks = [checks.TAG]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_every_command: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def add_base_argument(self, parser: CommandParser, *args: Any, **kwargs: Any) -> None:
        super().add_base_argument(parser, *args, **kwargs)
        self._of_every_command.append((args, kwargs))

    def add_arguments(self, parser: CommandParser) -> None:
        self._add_subcommands(parser, _SUBCOMMANDS)

    def _add_subcommands(
        self, parser: CommandParser, members: Sequence[type[Subcommand] | Group]
    ) -> None:
        subparsers = parser.add_subparsers(required=True, metavar="subcommand")
        for each in members:
            subparser = subparsers.add_parser(each.name, help=each.help, description=each.help)
            if isinstance(each, Group):
                self._add_subcommands(subparser, each.members)
                continue
            each.add_arguments(subparser)
            subparser.set_defaults(subcommand=each)
            # --settings and the like, after the subcommand as well as before it: what is absent
            # there must not undo what was given before.
            for args, kwargs in self._of_every_command:
                quiet = {**kwargs, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
                super().add_base_argument(subparser, *args, **quiet)

    def handle(self, *, subcommand: type[Subcommand], **options: Any) -> None:
        try:
            with outages_unlogged():
                subcommand(self.stdout, self.stderr, self.style).handle(options)
        except (ImproperlyConfigured, NatsError) as error:
            raise CommandError(str(error)) from error
