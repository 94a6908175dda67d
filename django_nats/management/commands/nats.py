"""``manage.py nats``: the command line, and the subcommands that it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import checks
from ...checks.streams import outages_unlogged
from ...exceptions import NatsError
from ...printable import printable_lines
from ..counters import COUNTERS
from ..limits import LIMITS
from ..setup import Setup
from ..status import Status
from ..subcommand import Group, Subcommand

_SUBCOMMANDS = (Setup, Status, COUNTERS, LIMITS)


class Command(BaseCommand):
    """The command ``nats``, with its subcommands."""

    help = "Set up and look at what this project keeps on NATS."
    # Without Django's own checks of caches, which end in a traceback if CACHES has a mistake.
    requires_system_checks = [checks.TAG]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Prepare to collect the options that every Django command has."""
        super().__init__(*args, **kwargs)
        self._base_arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def add_base_argument(self, parser: CommandParser, *args: Any, **kwargs: Any) -> None:
        """Add an option that every Django command has, and remember it for the subcommands."""
        super().add_base_argument(parser, *args, **kwargs)
        self._base_arguments.append((args, kwargs))

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
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
            # Options such as --settings may stand before or after the subcommand. Those that are
            # absent after it must not replace those before it with their defaults.
            for args, kwargs in self._base_arguments:
                hidden = {**kwargs, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
                super().add_base_argument(subparser, *args, **hidden)

    def handle(self, *, subcommand: type[Subcommand], **options: Any) -> None:
        """Run the subcommand. Raises CommandError, without control characters."""
        try:
            with outages_unlogged():
                verbosity = options["verbosity"]
                subcommand(self.stdout, self.stderr, self.style, verbosity).handle(options)
        except CommandError as error:
            raise CommandError(printable_lines(str(error)), returncode=error.returncode) from error
        except (ImproperlyConfigured, NatsError) as error:
            raise CommandError(printable_lines(str(error))) from error
