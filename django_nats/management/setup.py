"""``manage.py nats setup``: creates and updates streams as settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import nats_caches
from ..checks.declarations import in_use
from ..checks.streams import (
    StreamOf,
    by_stream,
    disagreement,
    entries,
    of_caches,
    of_counters,
    of_limits,
)
from ..client import drivers
from ..client.streams.config import text_of
from ..client.streams.differences import differences, update
from ..conf.counters import counter_aliases, counter_settings
from ..exceptions import NatsError
from .subcommand import NOTHING, Subcommand


class Setup(Subcommand):
    """The subcommand ``setup``.

    It creates streams that do not exist, and updates what can be changed without losing data. If
    one difference of a stream cannot be changed that way, nothing of the stream is changed, and the
    exit status is 1. That is the case if a stream would shrink below what it holds, if counters
    that exist would get a MAX_AGE, or if one of SOURCES would be dropped. A bucket that was created
    elsewhere may keep a history of its keys. The history is turned off if no older revisions are
    stored. Otherwise the bucket is refused.
    """

    name = "setup"
    help = "Create and update the streams of caches, counters, limits and quotas, losing no data."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare --alias, --plan and --noinput."""
        parser.add_argument(
            "--alias",
            action="append",
            default=[],
            help="Set up only this alias, of CACHES, NATS_COUNTERS or both. May be given several "
            "times.",
        )
        parser.add_argument(
            "--plan",
            "--dry-run",
            action="store_true",
            dest="plan",
            help="Show what would be done, without doing it.",
        )
        parser.add_argument(
            "--noinput",
            "--no-input",
            action="store_true",
            help="Accepted for deployment scripts: the command never asks for input.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        """Set up the chosen streams. Raises CommandError if one of them could not be set up."""
        chosen, plan = set(options["alias"]), options["plan"]
        streams = _streams()
        if not streams:
            raise CommandError(NOTHING)
        known = dict.fromkeys(each.alias for shared in streams for each in shared)
        if unknown := sorted(chosen - known.keys()):
            raise CommandError(
                f"No such alias on NATS: {', '.join(unknown)}. Its aliases are {', '.join(known)}."
            )
        if problems := [each for each in map(disagreement, streams) if each]:
            raise CommandError("\n".join(problems))
        failed: list[str] = []
        for shared in streams:
            if chosen and chosen.isdisjoint(each.alias for each in shared):
                continue
            first = shared[0]
            names = ", ".join(each.alias for each in shared)
            self.stdout.write(f"{names}: {first.title} on {first.connection.where}")
            try:
                if not self._set_up(first, plan):
                    failed.append(entries(shared))
            except NatsError as error:
                self.stdout.write(f"  failed: {error}", self.style.ERROR)
                failed.append(f"{entries(shared)} ({error})" if self.silent else entries(shared))
        if failed:
            raise CommandError(f"Not set up: {', '.join(dict.fromkeys(failed))}.")

    def _set_up(self, wanted: StreamOf, plan: bool) -> bool:
        """Create or update one stream. Return False if that was refused.

        With ``plan``, only show what would be done.
        """
        stream, session = wanted.stream, wanted.session
        document = drivers.run(session, stream.opening.info())
        if document is None:
            if not plan:
                drivers.run(session, stream.opening.open())
            self.stdout.write("  would create" if plan else "  created", self.style.SUCCESS)
            for field, value in stream.config.stream_config().items():
                self.stdout.write(f"    {field}: {text_of(field, value)}")
            return True
        found = differences(stream.config, document["config"], document["state"])
        if not found:
            self.stdout.write("  nothing to do")
            return True
        refused = [each.field for each in found if not each.fixable]
        if not refused and not plan:
            drivers.run(session, update(stream, document["config"]))
        if refused:
            self.stdout.write("  refused", self.style.ERROR)
        else:
            self.stdout.write("  would update" if plan else "  updated")
        for each in found:
            note = "" if each.fixable else f"  {each.obstacle}"
            self.stdout.write(f"    {each.field}: {' → '.join(each.texts)}{note}")
        if refused:
            self.stdout.write(
                "  Nothing was changed. Correct the options, or choose another "
                f"{wanted.named_by}, which is then created. Or delete the stream "
                f"{stream.config.stream} on the server, if its contents are not needed."
            )
            return False
        return True


def _streams() -> Sequence[list[StreamOf]]:
    counters = {alias: counter_settings(alias) for alias in counter_aliases()}
    limits = of_limits(in_use())
    return by_stream([*of_caches(nats_caches()), *of_counters(counters), *limits])
