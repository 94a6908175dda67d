"""The streams that count for limits, on all servers of the chosen aliases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.core.management.base import CommandParser

from ...checks.streams import by_stream, of_any_limits
from ...client import drivers, process
from ...client.counters.stream import CounterStream
from ...client.transport.session import Session
from ...conf.counters import counter_settings
from ...conf.limits import limit_settings
from ...keys import token
from ...limits.limit import Limit
from ...limits.stored import Hits, stored_hits


class Place(NamedTuple):
    """A stream of limits, and the declared limits of its aliases."""

    session: Session
    stream: CounterStream
    limits: Sequence[Limit]

    def hits(self, limit: str | None = None, key: str | None = None) -> list[Hits]:
        """Return the hits that count now, of all limits or one, and of all keys or one token."""
        return drivers.run(self.session, stored_hits(self.stream, limit, key))

    def reset(self, limit: str, key: str | None = None) -> set[str]:
        """Forget the hits of a limit, of one token or all keys. Return the tokens that had hits."""
        tokens = {each.key for each in self.hits(limit, key)}
        if tokens:
            counters = f"{token(limit)}.>" if key is None else f"{token(limit)}.{key}.>"
            drivers.run(self.session, self.stream.purge([counters]))
        return tokens


def places(limits: Sequence[Limit], alias: str | None) -> list[Place]:
    """Return the streams of the limits' aliases, or those of one alias.

    Without an alias, that of limits that name none is always among them.
    """
    chosen = [alias] if alias else [limit_settings().alias, *(each.alias for each in limits)]
    streams = [
        each for name in dict.fromkeys(chosen) for each in of_any_limits(counter_settings(name))
    ]
    found = []
    for shared in by_stream(streams):
        first, aliases = shared[0], {each.alias for each in shared}
        stream = process.counter_stream(first.connection, first.stream.config)
        sharing = [each for each in limits if each.alias in aliases]
        found.append(Place(first.session, stream, sharing))
    return found


def add_alias(parser: CommandParser) -> None:
    """Declare --alias."""
    parser.add_argument(
        "--alias",
        help="Only what is counted by this alias of NATS_COUNTERS. Default: those of all limits.",
    )
