"""``manage.py nats limits show``: shows a limit or quota, and what is left for a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...checks.declarations import declared_limits, declared_quotas
from ...limits.limit import Limit
from ...limits.quota import Quota
from ...printable import printable
from ..subcommand import Subcommand
from . import limits, quotas
from .places import KEY_HELP


class Show(Subcommand):
    """The subcommand ``show``. It counts nothing, and calls no rates or limits of functions."""

    name = "show"
    silent_at_verbosity_0 = False
    help = "Show a limit or quota, and how much of it is left for a key."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the name and the key."""
        parser.add_argument("limit", metavar="name", help="The name of a limit or quota.")
        parser.add_argument("key", nargs="?", help=KEY_HELP)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show what has that name. Raises CommandError if the project has nothing of the name."""
        name, key = options["limit"], options["key"]
        known: list[Limit | Quota] = [*declared_limits(), *declared_quotas()]
        found = [each for each in known if each.name == name]
        if not found:
            names = ", ".join(dict.fromkeys(each.name for each in known)) or "none"
            raise CommandError(
                f'No limit or quota is called "{name}". The project has: {names}. '
                "`manage.py nats limits top` also lists limits of which only the server knows."
            )
        for each in found:
            self.stdout.write(printable(name))
            if isinstance(each, Quota):
                facts, lines = quotas.facts(each), quotas.lines(each, key)
            else:
                facts, lines = limits.facts(each), limits.lines(each, key)
            for title, text in facts:
                self.stdout.write(f"  {title:10} {text}")
            for line in lines if key is not None else ():
                self.stdout.write(f"  {line}")
