"""Every public operation and the results of calling it: a new operation is one row here.

The tests of results, round trips, FAIL_OPEN, native async methods and the near cache take their
cases from these tables, and the tables of the docs are compared with them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any
from unittest.mock import ANY

HUNDRED = {f"key-{number}": number for number in range(100)}
HELD = {"key": 1, **HUNDRED}
"""The cache's values before each call, with a timeout of LIVES_S. ``absent`` has no value."""
LIVES_S = 1000
COUNTED = 5
"""The total of the counter ``k`` before each call. No other counter was ever changed."""
MISSING: Any = object()
"""A default that no value is equal to."""


# Results and arguments other than plain values ---------------------------------------------------


class Expected:
    """Equal to results that cannot be written down as one value."""

    def __init__(self, description: str, accepts: Callable[[Any], bool]) -> None:
        self._description = description
        self._accepts = accepts

    def __eq__(self, other: object) -> bool:
        return self._accepts(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._description}>"


def left(most: int) -> Expected:
    """Return an object equal to any time to live from 1 to ``most``."""
    return Expected(f"1 to {most}", lambda found: type(found) is int and 0 < found <= most)


def in_any_order(items: Iterable[Any]) -> Expected:
    """Return an object equal to every list of these items."""
    wanted = sorted(items)
    return Expected(f"{wanted}, in any order", lambda found: sorted(found) == wanted)


def stats(*, connected: bool) -> Expected:
    """Return an object equal to the stats of a cache whose server is reachable, or is not."""

    def accepts(found: Any) -> bool:
        return found.connected is connected and (found.entries > 0) is connected

    return Expected(f"stats, connected={connected}", accepts)


REVISION: Any = object()
"""Stands for the revision that ``key`` has when the call is made."""
ANY_REVISION = 7
"""Replaces REVISION where there is no server to ask."""


def add_one(value: int) -> int:
    return value + 1


# The rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One call of a public method, or of its async version with the same arguments."""

    name: str
    """The method, and after a space the case."""
    args: tuple[Any, ...]
    result: Any
    away: Any
    """The result under FAIL_OPEN while the server is unreachable."""
    round_trips: int
    _: KW_ONLY
    or_more: bool = False
    """There may be more round trips, for a request sent without waiting for its answer."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    documented: str = ""
    """How the docs describe ``away``, if not by its value."""

    # The near cache; counters have none.
    served: bool = False
    """The near cache serves the call from copies, without a request."""
    writes: bool = False
    """The call changes ``key``, so that an earlier copy is out of date."""
    key: str = "key"
    after: Any = None
    """The value of ``key`` after the call, or None if it has none."""

    # Methods of counters may differ in these.
    twin: bool = True
    """There is an async version."""
    native: bool = True
    """The async version needs no thread."""

    @property
    def method(self) -> str:
        return self.name.split()[0]

    @property
    def asks(self) -> bool:
        """Return True if the call sends requests and waits for their answers."""
        return self.round_trips > 0

    def takes(self, round_trips: int) -> bool:
        """Return True if the call may take this number of round trips."""
        return round_trips == self.round_trips or (self.or_more and round_trips > self.round_trips)

    def at(self, revision: int) -> Call:
        """Return this call with a revision in place of REVISION."""
        given = {name: revision if each is REVISION else each for name, each in self.kwargs.items()}
        return replace(self, kwargs=given)

    def sync(self, host: Any) -> Any:
        """Make the call. Return its result, as a list if it is an iterator."""
        return listed(getattr(host, self.method)(*self.args, **self.kwargs))

    async def awaited(self, host: Any) -> Any:
        """Async version of sync()."""
        return await alisted(getattr(host, f"a{self.method}")(*self.args, **self.kwargs))

    def in_a_loop(self, host: Any) -> Any:
        """Make the call by the async method, in a new event loop."""
        return run(self.awaited(host))


def listed(result: Any) -> Any:
    """Return a result, as a list if it is an iterator."""
    return list(result) if inspect.isgenerator(result) else result


async def alisted(result: Any) -> Any:
    """Async version of listed()."""
    if inspect.isasyncgen(result):
        return [each async for each in result]
    return await result


def run(result: Awaitable[Any]) -> Any:
    """Run a coroutine in a new event loop, and return its result."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(result)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def reads(
    name: str, args: tuple[Any, ...], result: Any, away: Any, round_trips: int, **more: Any
) -> Call:
    """Return the row of a call that changes nothing."""
    key = more.setdefault("key", _key_of(args))
    return Call(name, args, result, away, round_trips, after=HELD.get(key), **more)


def writes(
    name: str,
    args: tuple[Any, ...],
    result: Any,
    away: Any,
    round_trips: int,
    after: Any,
    **more: Any,
) -> Call:
    """Return the row of a call after which its key has the value ``after``."""
    more.setdefault("key", _key_of(args))
    return Call(name, args, result, away, round_trips, after=after, writes=True, **more)


def _key_of(args: tuple[Any, ...]) -> str:
    return args[0] if args and args[0] in ("key", "absent") else "key"


def by_name(calls: Iterable[Call]) -> dict[str, Call]:
    """Return the rows by name. Each name may be used once."""
    named = {}
    for call in calls:
        assert call.name not in named, call.name
        named[call.name] = call
    return named


_PAST = datetime(2020, 1, 1, tzinfo=timezone.utc)

CACHE = by_name(
    [
        reads("get", ("key",), 1, None, 1, served=True, documented="the default"),
        reads("get with a default", ("key", MISSING), 1, MISSING, 1, served=True),
        reads("get missing", ("absent",), None, None, 1),
        reads("get missing with a default", ("absent", MISSING), MISSING, MISSING, 1),
        reads(
            "get_with_revision",
            ("key", MISSING),
            (1, ANY),
            (MISSING, 0),
            1,
            documented="the default, and revision 0",
        ),
        reads("get_with_revision missing", ("absent",), (None, 0), (None, 0), 1),
        reads("get_many", ([*HUNDRED],), HUNDRED, {}, 1, served=True),
        reads("get_many of some", (["key", "absent"],), {"key": 1}, {}, 1),
        reads("get_many of none", ([],), {}, {}, 0),
        reads("has_key", ("key",), True, False, 1, served=True),
        reads("has_key missing", ("absent",), False, False, 1),
        reads("keys", ("*",), in_any_order(HELD), [], 3, or_more=True),
        reads("keys of a pattern", ("k?y",), ["key"], [], 3, or_more=True),
        reads("iter_keys", ("*",), in_any_order(HELD), [], 3, or_more=True, documented="nothing"),
        reads("iter_keys of a pattern", ("k?y",), ["key"], [], 3, or_more=True),
        reads("ttl", ("key",), left(LIVES_S), None, 1),
        reads("ttl missing", ("absent",), 0, None, 1),
        reads("pttl", ("key",), left(LIVES_S * 1000), None, 1),
        reads("pttl missing", ("absent",), 0, None, 1),
        reads(
            "stats",
            (),
            stats(connected=True),
            stats(connected=False),
            1,
            documented="what is known without the server",
        ),
        writes("set", ("key", 2), None, None, 1, after=2),
        writes("set for a time", ("key", 2, 1000), None, None, 1, after=2),
        writes("set timeout=0", ("key", 2, 0), None, None, 1, after=None),
        reads("set nx", ("key", 2), False, False, 2, kwargs={"nx": True}),
        writes("set nx missing", ("absent", 2), True, False, 1, after=2, kwargs={"nx": True}),
        writes("set xx", ("key", 2), True, False, 2, after=2, kwargs={"xx": True}),
        reads("set xx missing", ("absent", 2), False, False, 1, kwargs={"xx": True}),
        writes("set revision", ("key", 2), True, False, 1, after=2, kwargs={"revision": REVISION}),
        writes(
            "set revision timeout=0",
            ("key", 2, 0),
            True,
            False,
            2,
            after=None,
            kwargs={"revision": REVISION},
        ),
        writes(
            "set_many",
            ({"key": 2, "other": 3},),
            [],
            ["key", "other"],
            1,
            after=2,
            documented="all the keys, as failed",
        ),
        writes("set_many a hundred", (HUNDRED,), [], [*HUNDRED], 1, key="key-7", after=7),
        writes("set_many timeout=0", ({"key": 2}, 0), [], ["key"], 1, after=None),
        reads("set_many none", ({},), [], [], 0),
        writes("add", ("absent", 2), True, False, 1, after=2),
        reads("add over a value", ("key", 2), False, False, 2),
        writes("touch", ("key",), True, False, 2, after=1),
        writes("touch for a time", ("key", 1000), True, False, 2, after=1),
        writes("touch timeout=0", ("key", 0), True, False, 2, after=None),
        reads("touch missing", ("absent",), False, False, 1),
        writes("expire", ("key", 1000), True, False, 2, after=1),
        writes("expire now", ("key", 0), True, False, 2, after=None),
        writes("pexpire", ("key", 1_000_000), True, False, 2, after=1),
        writes("pexpire now", ("key", 0), True, False, 2, after=None),
        writes("expire_at", ("key", 4e9), True, False, 2, after=1),
        writes("expire_at a time that is over", ("key", _PAST), True, False, 2, after=None),
        reads("expire_at missing", ("absent", 1e10), False, False, 1),
        writes("pexpire_at", ("key", 4e12), True, False, 2, after=1),
        writes("pexpire_at a time that is over", ("key", 1), True, False, 2, after=None),
        reads("pexpire_at missing", ("absent", 1e13), False, False, 1),
        writes("persist", ("key",), True, False, 2, after=1),
        writes("incr", ("key",), 2, None, 2, after=2),
        writes(
            "incr ignoring", ("absent",), 1, None, 2, after=1, kwargs={"ignore_key_check": True}
        ),
        writes("decr", ("key",), 0, None, 2, after=0),
        writes(
            "decr ignoring", ("absent",), -1, None, 2, after=-1, kwargs={"ignore_key_check": True}
        ),
        writes("incr_version", ("key",), 2, None, 4, after=None),
        writes("decr_version", ("key",), 0, None, 4, after=None),
        writes("delete", ("key",), True, False, 2, after=None),
        reads("delete missing", ("absent",), False, False, 1),
        writes("getdel", ("key",), 1, None, 2, after=None, documented="the default"),
        writes("getdel with a default", ("key", MISSING), 1, MISSING, 2, after=None),
        reads("getdel missing", ("absent",), None, None, 1),
        reads("getdel missing with a default", ("absent", MISSING), MISSING, MISSING, 1),
        writes("delete_many", (["key", "absent"],), None, None, 1, after=None),
        writes("delete_many a hundred", ([*HUNDRED],), None, None, 1, key="key-7", after=None),
        reads("delete_many none", ([],), None, None, 0),
        writes("delete_pattern", ("k*",), len(HELD), 0, 4, after=None, or_more=True),
        writes("clear", (), None, None, 2, after=None),
        reads(
            "get_or_set",
            ("key", 5),
            1,
            5,
            1,
            served=True,
            documented="the default, called if it is callable",
        ),
        writes("get_or_set missing", ("absent", 2), 2, 2, 2, after=2),
        writes("get_or_set a function", ("absent", lambda: 6), 6, 6, 2, after=6),
        writes(
            "update",
            ("key", add_one),
            2,
            8,
            2,
            after=2,
            kwargs={"default": 7},
            documented="what the function made of the value, or else of its default",
        ),
        writes("update missing", ("absent", add_one, 7), 8, 8, 2, after=8),
        reads("close", (), None, None, 0),
    ]
)
"""The operations of NatsCache, called on a cache that holds HELD."""

COUNTER = by_name(
    [
        Call("value", (), COUNTED, None, 1),
        Call("incr", (), COUNTED + 1, None, 1),
        Call("incr by", (3,), COUNTED + 3, None, 1),
        Call("decr", (), COUNTED - 1, None, 1),
        Call("set", (7,), 7, None, 2),
        Call("set the same", (COUNTED,), COUNTED, None, 1),
        Call("reset", (), None, None, 2),
        Call("take", (), True, False, 2),
        Call("take too many", (COUNTED + 1,), False, False, 1),
        Call("sources", (), {}, {}, 1),
        Call("incr_later", (), None, None, 0, or_more=True, twin=False),
    ]
)
"""The operations of Counter("k"), which has counted to COUNTED."""

COUNTERS = by_name(
    [
        Call("incr", ("k",), COUNTED + 1, None, 1),
        Call(
            "get_many",
            (["k", "none"],),
            {"k": COUNTED, "none": 0},
            {"k": None, "none": None},
            1,
            documented="`None` for each name",
        ),
        Call("get_many of none", ([],), {}, {}, 0),
        Call("matching", (">",), {"k": COUNTED}, {}, 1),
        Call("total", (">",), COUNTED, None, 1),
        Call("incr_later", ("k",), None, None, 0, or_more=True, twin=False),
        Call("flush", (), None, None, 0, native=False),
    ]
)
"""The operations of Counters, where only ``k`` has counted, to COUNTED."""

PREFETCHING = by_name(
    [
        Call("prefetch_counters", ("views",), str(COUNTED), "", 1),
        Call("with_counters", ("views",), str(COUNTED), "", 1, twin=False),
    ]
)
"""Reads of the counters of model instances. Results are what a template shows afterwards."""
