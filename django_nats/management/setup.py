"""``manage.py nats setup``: make the buckets what settings say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import NatsCache, nats_caches
from ..checks import by_bucket, disagreement
from ..client import bridge
from ..client.bucket import differences
from ..exceptions import NatsError
from .subcommand import NO_ALIAS, Subcommand


class Setup(Subcommand):
    """Creates what is absent, and updates what the server can change without losing data.

    A bucket with a difference that cannot be mended so is left as it is, other differences
    included, and the exit status is 1. Keeping older revisions (a bucket made elsewhere, with a
    history) is switched off where none are stored, and refused where that would delete some: no
    cache wrote them. Where a bucket shrinks below what it holds, eviction counts as losing data
    too.
    """

    name = "setup"
    help = "Create and update the buckets of CACHES, losing no data."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument(
            "--alias",
            action="append",
            default=[],
            help="Only the bucket of this alias of CACHES; may be given several times.",
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
        chosen, plan = options["alias"], options["plan"]
        known = nats_caches()
        if not known:
            raise CommandError(NO_ALIAS)
        unknown = ", ".join(each for each in chosen if each not in known)
        if unknown:
            raise CommandError(
                f"Not served by django_nats: {unknown}. CACHES has {', '.join(known)}."
            )
        buckets = by_bucket(known)
        if problems := [each for each in map(disagreement, buckets) if each]:
            raise CommandError("\n".join(problems))
        failed = []
        for bucket in buckets:
            if chosen and not bucket.keys() & set(chosen):
                continue
            names = ", ".join(bucket)
            cache = next(iter(bucket.values()))
            config = cache._config
            self.stdout.write(f"{names}: bucket {config.bucket.name} on {config.connection.where}")
            try:
                done = self._set_up(cache, plan)
            except NatsError as error:
                self.stdout.write(self.style.ERROR(f"  failed: {error}"))
                done = False
            if not done:
                failed.append(names)
        if failed:
            raise CommandError(f"Not set up: {', '.join(failed)}.")

    def _set_up(self, cache: NatsCache, plan: bool) -> bool:
        """Bring one bucket in line, or with ``plan`` only tell; whether it is, or would be."""
        bucket, session = cache._bucket, cache.session
        document = bridge.run(session, bucket.info())
        if document is None:
            if not plan:
                bridge.run(session, bucket.open())
            self.stdout.write(self.style.SUCCESS("  would create" if plan else "  created"))
            for field, value in bucket.config.stream_config().items():
                self.stdout.write(f"    {field}: {value!r}")
            return True
        found = differences(bucket.config, document["config"], document["state"])
        if not found:
            self.stdout.write("  nothing to do")
            return True
        refused = [each.field for each in found if not each.fixable]
        if not refused and not plan:
            bridge.run(session, bucket.update(document["config"]))
        done = "  would update" if plan else "  updated"
        self.stdout.write(self.style.ERROR("  refused") if refused else done)
        for each in found:
            note = "" if each.fixable else "  cannot be changed without losing data"
            self.stdout.write(f"    {each.field}: {each.existing!r} → {each.wanted!r}{note}")
        if refused:
            self.stdout.write(
                "  Nothing was changed. Correct the OPTIONS, or name another BUCKET there, which "
                "is then made anew; or, if what this one holds may go, delete its stream, "
                f"{bucket.config.stream}."
            )
            return False
        return True
