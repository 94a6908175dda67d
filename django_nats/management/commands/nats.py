"""``manage.py nats``: see the subcommands."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import checks
from ..setup import Setup
from ..status import Status
from ..subcommand import Subcommand

_SUBCOMMANDS: dict[str, type[Subcommand]] = {each.name: each for each in (Setup, Status)}


class Command(BaseCommand):
    help = "Set up and look at what this project keeps on NATS."
    # Not Django's own caches checks, which answer a mistake in CACHES with a traceback.
    requires_system_checks = [checks.TAG]

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        for name, subcommand in _SUBCOMMANDS.items():
            subparser = subparsers.add_parser(
                name, help=subcommand.help, description=subcommand.help
            )
            subcommand.add_arguments(subparser)

    def handle(self, *, subcommand: str, **options: Any) -> None:
        try:
            with checks.outages_unlogged():
                _SUBCOMMANDS[subcommand](self.stdout, self.style).handle(options)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
