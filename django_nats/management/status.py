"""``manage.py nats status``: what the project keeps on NATS, and whether it can be reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..cache import NatsCache, nats_caches
from ..client import bridge
from ..client.bucket import differences
from ..exceptions import NatsError
from .subcommand import NO_ALIAS, Subcommand


@dataclass
class CacheStatus:
    """An alias of CACHES at one moment; sizes are in bytes, a limit of None is none."""

    alias: str
    servers: str
    bucket: str
    error: str | None = None
    """Why nothing is known of the rest."""
    server: str | None = None
    """Name and version of the connected server."""
    rtt: float | None = None
    """Seconds from a question to the server's answer."""
    exists: bool = False
    """Whether there is a bucket; it is made on first use."""
    storage: str | None = None
    replicas: int | None = None
    entries: int = 0
    """Messages in the bucket, those of recently deleted keys included."""
    bytes: int = 0
    max_entries: int | None = None
    max_bytes: int | None = None
    max_value_size: int | None = None
    differences: list[str] = field(default_factory=list)
    """In what the bucket is not what settings say."""


class Status(Subcommand):
    """Creates and changes nothing. The exit status is 1 when a bucket cannot be asked about."""

    name = "status"
    help = "Show the servers and buckets of CACHES, and where they differ from settings."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Write JSON, for programs.")

    def handle(self, options: Mapping[str, Any]) -> None:
        found = [_status(alias, cache) for alias, cache in nats_caches().items()]
        if options["json"]:
            document = {"caches": [asdict(each) for each in found]}
            self.stdout.write(json.dumps(document, indent=2))
        else:
            for each in found:
                self._show(each)
        away = [each.alias for each in found if each.error is not None]
        if away:
            raise CommandError(f"No answer for {', '.join(away)}.")
        if not found:
            raise CommandError(NO_ALIAS)

    def _show(self, status: CacheStatus) -> None:
        style = self.style
        self.stdout.write(f"{status.alias}: bucket {status.bucket} on {status.servers}")
        if status.error is not None:
            self.stdout.write(style.ERROR(f"  {status.error}"))
            return
        rtt = (status.rtt or 0) * 1000
        self.stdout.write(f"  server   {status.server}, {rtt:.2f} ms there and back")
        if not status.exists:
            self.stdout.write("  absent: made on first use, or by `manage.py nats setup`")
            return
        self.stdout.write(f"  storage  {status.storage}, replicas: {status.replicas}")
        self.stdout.write(f"  entries  {status.entries:,} {_limit(status.max_entries)}")
        self.stdout.write(f"  bytes    {status.bytes:,} {_limit(status.max_bytes)}")
        if status.max_value_size is not None:
            self.stdout.write(f"  values   up to {status.max_value_size:,} bytes each")
        for each in status.differences:
            self.stdout.write(style.WARNING(f"  differs  {each}"))
        if status.differences:
            self.stdout.write("  `manage.py nats setup --plan` tells what can be done about that")


def _status(alias: str, cache: NatsCache) -> CacheStatus:
    bucket, session = cache._bucket, cache.session
    status = CacheStatus(alias, cache._config.connection.where, bucket.config.name)
    try:
        # Twice, since the first answer may have taken the time of connecting, too.
        bridge.run(session, bucket.info())
        asked = monotonic()
        document = bridge.run(session, bucket.info())
    except NatsError as error:
        status.error = str(error)
        return status
    status.rtt = monotonic() - asked
    status.server = session.server
    if document is not None:
        config, state = document["config"], document["state"]
        status.exists = True
        status.storage = config["storage"]
        status.replicas = config["num_replicas"]
        status.entries = state["messages"]
        status.bytes = state["bytes"]
        status.max_entries = _positive(config.get("max_msgs"))
        status.max_bytes = _positive(config.get("max_bytes"))
        status.max_value_size = _positive(config.get("max_msg_size"))
        status.differences = [str(each) for each in differences(bucket.config, config, state)]
    return status


def _positive(limit: int | None) -> int | None:
    return limit if limit is not None and limit > 0 else None


def _limit(limit: int | None) -> str:
    return "without limit" if limit is None else f"of at most {limit:,}"
