"""The counters of an alias of NATS_COUNTERS, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from django.core.signals import setting_changed

from .. import keys
from ..client import bridge
from ..client.counters import CounterStream
from ..client.session import Session
from ..client.steps import Steps
from ..client.twins import AWAY, twins
from ..conf.counters import CounterSettings, counter_settings
from ..exceptions import InvalidKey
from ..stats import Pending
from . import later

Name: TypeAlias = "str | tuple[str, ...]"
"""A counter's name: a string in which dots separate tokens, or a tuple with a token each."""

N = TypeVar("N", bound=Name)

DEFAULT_ALIAS = "default"


def subject_of(name: Name) -> str:
    """The subject of a counter, without its stream's prefix.

    Raises InvalidKey, a ValueError, for names that are empty, have empty tokens or are too long.
    """
    parts = name if isinstance(name, tuple) else (name,)
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(
                f"A counter's name is made of strings, not of {part!r} ({type(part).__name__})"
            )
    return keys.counter_subject(*parts)


_known_subject_of = lru_cache(maxsize=4096)(subject_of)


def _name_of(subject: str) -> Name | None:
    """The name of a counter; None for a subject that no name is written as."""
    with suppress(InvalidKey):
        return keys.counter_name(subject)
    with suppress(InvalidKey):
        return keys.counter_parts(subject)
    return None


class Counters:
    """The counters of one alias. Every method has an async twin, with an ``a`` before its name.

    ``counters`` is the default alias's collection, ``counters["other"]`` another's. Settings are
    read at the first use. Operations raise CounterUnavailable when the server is away; with
    FAIL_OPEN they return what their docstrings name instead.
    """

    def __init__(self, alias: str = DEFAULT_ALIAS) -> None:
        self.alias = alias

    def __getitem__(self, alias: str) -> Counters:
        return Counters(alias)

    def __repr__(self) -> str:
        return f"<Counters {self.alias}>"

    @property
    def settings(self) -> CounterSettings:
        """What settings say. Raises ImproperlyConfigured."""
        return place_of(self.alias).settings

    @property
    def fail_open(self) -> bool:
        return self.settings.fail_open

    @property
    def session(self) -> Session:
        """The process's connection to the servers, shared by all that have the same settings."""
        return place_of(self.alias).session

    @property
    def stream(self) -> CounterStream:
        """The operations as steps."""
        return place_of(self.alias).stream

    def _incr(self, name: Name, n: int = 1) -> Steps[int]:
        """Add to a counter, exactly once; its new total. One round trip.

        Raises CounterUnavailable, with ``may_have_happened``, when that is not acknowledged within
        DEADLINE; TypeError for what is no integer; ValueError for what is no name. FAIL_OPEN: None.
        """
        return (yield from self.stream.incr(_known_subject_of(name), n))

    incr, aincr = twins(_incr, lambda name, n=1: None)

    def _get_many(self, names: Iterable[N]) -> Steps[dict[N, int]]:
        """The totals of counters by name, 0 for those never changed.

        One round trip, up to 1,024 of them. FAIL_OPEN: None for each.
        """
        subjects = {name: subject_of(name) for name in names}
        try:
            totals = yield from self.stream.get_many(list(subjects.values()))
        except AWAY:
            if not self.fail_open:
                raise
            unknown: dict[N, Any] = dict.fromkeys(subjects)  # the names may be gone through once
            return unknown
        return {name: totals[subject] for name, subject in subjects.items()}

    get_many, aget_many = twins(_get_many)

    def _matching(self, pattern: str) -> Steps[dict[Name, int]]:
        """The totals of all counters whose names match a pattern, by name.

        In a pattern a token ``*`` stands for any one, and a last token ``>`` for one or more. The
        name of a counter with dots within a token is a tuple. Those that another program counts
        under what is no name here are left out. FAIL_OPEN: none.
        """
        totals = yield from self.stream.matching(keys.counter_filter(pattern))
        names = {_name_of(subject): total for subject, total in totals.items()}
        return {name: total for name, total in names.items() if name is not None}

    matching, amatching = twins(_matching, lambda pattern: {})

    def _total(self, pattern: str) -> Steps[int]:
        """The sum of all counters whose names match a pattern, as in matching. FAIL_OPEN: None."""
        return (yield from self.stream.total(keys.counter_filter(pattern)))

    total, atotal = twins(_total, lambda pattern: None)

    # Later -----------------------------------------------------------------------------------

    def incr_later(self, name: Name, n: int = 1) -> None:
        """Add to a counter in the background, within about FLUSH_INTERVAL; exactly once.

        It asks nobody and waits for nothing, so it has no twin. What is still pending when the
        process is killed is lost: see ``flush``. Raises CounterUnavailable when MAX_PENDING other
        counters are pending already, TypeError for what is no integer, ValueError for what is no
        name. FAIL_OPEN: dropped in that case.
        """
        later.backlog(self.alias).add(_known_subject_of(name), n)

    def flush(self, timeout: float | None = None) -> None:
        """Publish what ``incr_later`` of this alias has added so far, in this process.

        ``timeout`` is in seconds, by default DEADLINE. Raises CounterUnavailable for what is not
        acknowledged by then, which stays pending, or what the server refused it with. FAIL_OPEN:
        returns all the same.
        """
        try:
            seconds = self.settings.stream.deadline if timeout is None else timeout
            later.backlog(self.alias).flush(seconds)
        except AWAY:
            if not self.fail_open:
                raise

    async def aflush(self, timeout: float | None = None) -> None:
        """As ``flush``, without blocking the running event loop."""
        await asyncio.to_thread(self.flush, timeout)

    @property
    def pending(self) -> Pending:
        """What ``incr_later`` of this alias has added in this process, and is not published yet."""
        return later.backlog(self.alias).pending


class Place(NamedTuple):
    """Where the counters of an alias are."""

    settings: CounterSettings
    session: Session
    stream: CounterStream


_places: dict[str, Place] = {}


def place_of(alias: str) -> Place:
    """What an alias's settings say, read once until they change. Raises ImproperlyConfigured."""
    try:
        return _places[alias]
    except KeyError:
        read = counter_settings(alias)
        stream = bridge.counter_stream(read.connection, read.stream)
        return _places.setdefault(alias, Place(read, bridge.session(read.connection), stream))


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("NATS_COUNTERS", "DEBUG", "BASE_DIR"):
        _places.clear()


setting_changed.connect(_forget, dispatch_uid="django_nats.counters")

counters = Counters()
