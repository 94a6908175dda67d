"""``manage.py nats limits reset``: lets keys begin again, with no hits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...checks.declarations import declared_limits
from ...limits.keys import key_tokens
from ...printable import counted, printable
from ..subcommand import Subcommand
from .places import add_alias, places


class Reset(Subcommand):
    """The subcommand ``reset``.

    It purges all windows of a key, or of all keys, in all streams of the limit's alias. Another
    process may refuse a key for one more second.
    """

    name = "reset"
    help = "Forget the hits of a key, or of all keys of a limit."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the limit's name, the key, --all, --noinput and --alias."""
        parser.add_argument("limit", metavar="name", help="The name of a limit.")
        parser.add_argument("key", nargs="?", help="A key, or its hash as `top` shows it.")
        parser.add_argument("--all", action="store_true", help="Forget the hits of all keys.")
        parser.add_argument(
            "--noinput",
            "--no-input",
            action="store_false",
            dest="interactive",
            help="With --all, do not ask for confirmation.",
        )
        add_alias(parser)

    def handle(self, options: Mapping[str, Any]) -> None:
        """Reset the key or keys. Raises CommandError if nothing is known of such a limit."""
        name, key = options["limit"], options["key"]
        if (key is None) != options["all"]:
            raise CommandError("Name a key, or add --all for all keys of the limit.")
        limits = [each for each in declared_limits() if each.name == name]
        found = places(limits, options["alias"])
        if not limits and not any(place.hits(name) for place in found):
            raise CommandError(f'No limit is called "{name}", and the server knows of none.')
        if options["all"] and options["interactive"]:
            _confirm(name)
        tokens = [None] if key is None else key_tokens(key)
        reset = {each for place in found for token in tokens for each in place.reset(name, token)}
        if not reset:
            self.stdout.write(f"{name}: no hits to forget")
        elif key is None:
            self.stdout.write(f"{name}: reset for {counted(len(reset), 'key')}")
        else:
            self.stdout.write(f"{name}: reset for {printable(key)!r}")


def _confirm(name: str) -> None:
    try:
        answer = input(f'Forget the hits of all keys of the limit "{printable(name)}"? [yes/no] ')
    except EOFError:
        raise CommandError("No answer could be read. Add --noinput.") from None
    if answer.strip().lower() != "yes":
        raise CommandError("Nothing was reset.")
