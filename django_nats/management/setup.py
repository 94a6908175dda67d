"""``manage.py nats setup``: make the streams what settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import nats_caches
from ..checks.streams import Kept, by_stream, disagreement, of_caches, of_counters
from ..client import bridge
from ..client.differences import differences
from ..conf.counters import counter_aliases, counter_settings
from ..exceptions import NatsError
from .subcommand import NOTHING, Subcommand


class Setup(Subcommand):
    """Creates what is absent, and updates what the server can change without losing data.

    A stream with a difference that cannot be mended so is left as it is, other differences
    included, and the exit status is 1. A cache's bucket that keeps older revisions (made elsewhere,
    with a history) gets rid of that where none are stored, and is refused where that would delete
    some: no cache wrote them. Where a bucket shrinks below what it holds, eviction counts as losing
    data too; so does a MAX_AGE for counters there already are, and dropping one of SOURCES.
    """

    name = "setup"
    help = "Create and update the streams of CACHES and NATS_COUNTERS, losing no data."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument(
            "--alias",
            action="append",
            default=[],
            help="Only what this alias keeps, of CACHES, NATS_COUNTERS, or both; may be given "
            "several times.",
        )
        parser.add_argument(
            "--plan",
            "--dry-run",
            action="store_true",
            dest="plan",
            help="Show what would be done, and do nothing.",
        )
        parser.add_argument(
            "--noinput",
            "--no-input",
            action="store_true",
            help="Accepted for deployment scripts; nothing is ever asked.",
        )

    def handle(self, options: Mapping[str, Any]) -> None:
        chosen, plan = set(options["alias"]), options["plan"]
        streams = _streams()
        if not streams:
            raise CommandError(NOTHING)
        known = dict.fromkeys(each.alias for shared in streams for each in shared)
        if unknown := sorted(chosen - known.keys()):
            raise CommandError(
                f"Not kept on NATS: {', '.join(unknown)}. Its aliases are {', '.join(known)}."
            )
        if problems := [each for each in map(disagreement, streams) if each]:
            raise CommandError("\n".join(problems))
        failed = []
        for shared in streams:
            if chosen and chosen.isdisjoint(each.alias for each in shared):
                continue
            first = shared[0]
            names = ", ".join(each.alias for each in shared)
            self.stdout.write(f"{names}: {first.title} on {first.connection.where}")
            try:
                done = self._set_up(first, plan)
            except NatsError as error:
                self.stdout.write(self.style.ERROR(f"  failed: {error}"))
                done = False
            if not done:
                failed.append(names)
        if failed:
            raise CommandError(f"Not set up: {', '.join(failed)}.")

    def _set_up(self, kept: Kept, plan: bool) -> bool:
        """Bring one stream in line, or with ``plan`` only tell; whether it is, or would be."""
        stream, session = kept.stream, kept.session
        document = bridge.run(session, stream.info())
        if document is None:
            if not plan:
                bridge.run(session, stream.open())
            self.stdout.write(self.style.SUCCESS("  would create" if plan else "  created"))
            for field, value in stream.config.stream_config().items():
                self.stdout.write(f"    {field}: {value!r}")
            return True
        found = differences(stream.config, document["config"], document["state"])
        if not found:
            self.stdout.write("  nothing to do")
            return True
        refused = [each.field for each in found if not each.fixable]
        if not refused and not plan:
            bridge.run(session, stream.update(document["config"]))
        done = "  would update" if plan else "  updated"
        self.stdout.write(self.style.ERROR("  refused") if refused else done)
        for each in found:
            note = "" if each.fixable else "  cannot be changed without losing data"
            self.stdout.write(f"    {each.field}: {each.existing!r} → {each.wanted!r}{note}")
        if refused:
            self.stdout.write(
                "  Nothing was changed. Correct the options, or name another "
                f"{kept.named_by} there, which is then made anew; or, if what this one holds may "
                f"go, delete its stream, {stream.config.stream}."
            )
            return False
        return True


def _streams() -> Sequence[list[Kept]]:
    counters = {alias: counter_settings(alias) for alias in counter_aliases()}
    return by_stream([*of_caches(nats_caches()), *of_counters(counters)])
