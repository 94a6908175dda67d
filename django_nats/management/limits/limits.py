"""What ``show`` says of a limit, and of a key's hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, isinf
from typing import Any

from ... import keys
from ...checks.streams import of_limits
from ...conf.counters import counter_settings
from ...conf.limits import limit_settings
from ...limits.keys import key_tokens
from ...limits.limit import Limit
from ...limits.rates import Rate
from ...limits.stored import Hits
from ...printable import duration
from .places import places
from .rows import rows, table


def facts(limit: Limit) -> Iterator[tuple[str, str]]:
    """Yield names and texts that say what a limit is."""
    yield "rates", ", ".join(by(each) if callable(each) else str(each) for each in limit.rates)
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


def by(function: Callable[..., Any]) -> str:
    """Return what to show for a rate or limit that is a function, which is not called."""
    return f"by {getattr(function, '__qualname__', type(function).__qualname__)}()"


def lines(limit: Limit, key: str) -> Iterator[str]:
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
    found = {
        each.seconds: each
        for token in key_tokens(key)
        for place in places([limit], limit.alias)
        for each in place.hits(limit.name, token)
    }
    for rate in limit.rates:
        if isinstance(rate, Rate):
            none = Hits(keys.token(limit.name), limit._token(key), rate.seconds, 0, 0, 0.0)
            found.setdefault(rate.seconds, none)
    return [found[seconds] for seconds in sorted(found)]
