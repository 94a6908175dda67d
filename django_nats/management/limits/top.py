"""``manage.py nats limits top``: shows the keys with the most hits."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...checks.declarations import declared_limits
from ...limits.keys import is_hash
from ..subcommand import Subcommand
from .places import add_alias, places
from .rows import rows, table

_HASHES = (
    "Keys are shown as hashes, unless READABLE_KEYS of NATS_LIMITS, or the limit's own option "
    "readable, is True."
)


class Top(Subcommand):
    """The subcommand ``top``.

    It reads the counters of all keys, and changes nothing. Limits that no imported module declares
    are found by what the server has counted for them.
    """

    name = "top"
    silent_at_verbosity_0 = False
    help = "Show the keys with the most hits now."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the limit's name, -n and --alias."""
        parser.add_argument(
            "limit", nargs="?", metavar="name", help="The name of a limit. Default: all limits."
        )
        parser.add_argument("-n", type=int, default=20, help="How many to show. Default: 20.")
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show the keys. Raises CommandError if there are none."""
        if options["n"] < 1:
            raise CommandError(f"-n must be at least 1, not {options['n']}.")
        name = options["limit"]
        found = (
            row
            for place in places(declared_limits(), options["alias"])
            for row in rows(place.hits(name), place.limits)
            if row.used > 0
        )
        largest = nsmallest(options["n"], found, key=lambda row: (-row.usage.used, row.cells))
        if not largest:
            of = "" if name is None else f' of the limit "{name}"'
            raise CommandError(f"No hits{of} count now.")
        for line in table(largest):
            self.stdout.write(line)
        if any(is_hash(row.key) for row in largest):
            self.stdout.write(_HASHES)
