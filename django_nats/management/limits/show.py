"""``manage.py nats limits show``: shows a limit, and what it decides about a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, isinf
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ... import keys
from ...checks.declarations import declared_limits
from ...checks.streams import of_limits
from ...conf.counters import counter_settings
from ...conf.limits import limit_settings
from ...limits.keys import key_tokens
from ...limits.limit import Limit, RateSpec
from ...limits.rates import Rate
from ...limits.stored import Hits
from ...printable import duration, printable
from ..subcommand import Subcommand
from .places import places
from .rows import rows, table


class Show(Subcommand):
    """The subcommand ``show``. It counts nothing, and calls no rates that are functions."""

    name = "show"
    silent_at_verbosity_0 = False
    help = "Show a limit, and whether it would let a hit of a key through now."

    @classmethod
    def add_arguments(cls, parser: CommandParser) -> None:
        """Declare the limit's name and the key."""
        parser.add_argument("limit", metavar="name", help="The name of a limit.")
        parser.add_argument("key", nargs="?", help="A key, or its hash as `top` shows it.")

    def handle(self, options: Mapping[str, Any]) -> None:
        """Show the limit. Raises CommandError if the project has none of that name."""
        for limit in _named(declared_limits(), options["limit"]):
            self.stdout.write(printable(limit.name))
            for name, text in _facts(limit):
                self.stdout.write(f"  {name:10} {text}")
            if options["key"] is not None:
                for line in _lines(limit, options["key"]):
                    self.stdout.write(f"  {line}")


def _named(limits: Sequence[Limit], name: str) -> list[Limit]:
    """Return the limits of a name. Raises CommandError if there is none."""
    found = [each for each in limits if each.name == name]
    if not found:
        known = ", ".join(dict.fromkeys(each.name for each in limits)) or "none"
        raise CommandError(
            f'No limit is called "{name}". The project has: {known}. `manage.py nats limits top` '
            "also lists limits of which only the server knows."
        )
    return found


def _facts(limit: Limit) -> Iterator[tuple[str, str]]:
    yield "rates", ", ".join(map(_text, limit.rates))
    yield "algorithm", limit.algorithm
    yield "alias", limit.alias
    for each in of_limits([limit]):
        yield "stream", each.stream.config.stream
    timeout = limit.timeout or counter_settings(limit.alias).stream.request_timeout
    done = "let through" if limit.fail_open else "refused"
    yield "no answer", f"hits are {done} after {duration(timeout)}"
    if not limit_settings().enabled:
        yield "off", "every hit is let through, since NATS_LIMITS has ENABLED False"
    elif limit.dry_run:
        yield "dry run", "every hit is let through, and those over the limit are logged"


def _text(rate: RateSpec) -> str:
    if callable(rate):
        return f"by {getattr(rate, '__qualname__', type(rate).__qualname__)}()"
    return "none" if rate is None else str(rate)


def _lines(limit: Limit, key: str) -> Iterator[str]:
    """Yield what each rate has counted for a key, and whether there is room for one more hit."""
    found = list(rows(_hits(limit, key), [limit]))
    yield from table(found) if found else ()
    if any(map(callable, limit.rates)):
        yield "The rates depend on the request"
        return
    wait = max((each.usage.retry_after(1) for each in found), default=0.0)
    if isinf(wait):
        yield "A hit is always refused"
    else:
        yield f"A hit is refused for {duration(ceil(wait))}" if wait else "A hit is let through"


def _hits(limit: Limit, key: str) -> list[Hits]:
    """Return a key's hits in windows of all lengths, also where there are none."""
    tokens = key_tokens(key)
    found = {
        each.seconds: each
        for token in tokens
        for place in places([limit], limit.alias)
        for each in place.hits(limit.name, token)
    }
    for rate in limit.rates:
        if isinstance(rate, Rate):
            none = Hits(keys.token(limit.name), tokens[0], rate.seconds, 0, 0, 0.0)
            found.setdefault(rate.seconds, none)
    return [found[seconds] for seconds in sorted(found)]
