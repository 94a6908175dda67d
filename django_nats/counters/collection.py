"""The counters of an alias of NATS_COUNTERS, addressed by name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from django.core.signals import setting_changed

from .. import keys
from ..client import process
from ..client.counters.stream import CounterStream
from ..client.operations import AWAY, Operations, note_hidden
from ..client.protocol.steps import Steps
from ..client.transport.session import Session
from ..conf.connection import is_outdated, warn_of_named_server
from ..conf.counters import CounterSettings, counter_settings
from ..exceptions import InvalidKey
from ..stats import Pending
from . import write_behind

Name: TypeAlias = "str | tuple[str, ...]"
"""A counter's name: a string in which dots separate tokens, or a tuple of tokens."""

N = TypeVar("N", bound=Name)

DEFAULT_ALIAS = "default"


def subject_of(name: Name) -> str:
    """Return the subject of a counter, without its stream's prefix.

    Raises InvalidKey, a ValueError, if the name is empty, has an empty token or is too long, and
    TypeError if it is not made of strings.
    """
    parts = name if isinstance(name, tuple) else (name,)
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(
                f"A counter's name is made of strings, not of {part!r} ({type(part).__name__})"
            )
    return keys.counter_subject(*parts)


_cached_subject_of = lru_cache(maxsize=4096)(subject_of)


def _name_of(subject: str) -> Name | None:
    """Return the name of a counter, or None if no name has this subject."""
    with suppress(InvalidKey):
        return keys.counter_name(subject)
    with suppress(InvalidKey):
        return keys.counter_parts(subject)
    return None


class Counters(Operations):
    """The counters of one alias.

    ``counters`` holds those of the default alias, ``counters["other"]`` those of another. Settings
    are read at the first use. Every method that asks the server has an async version, with an
    ``a`` before its name. Operations raise CounterUnavailable when the server is unavailable. With
    FAIL_OPEN they return what their docstrings say instead.
    """

    def __init__(self, alias: str = DEFAULT_ALIAS) -> None:
        """Address the counters of an alias, without reading its settings."""
        self.alias = alias

    def __getitem__(self, alias: str) -> Counters:
        """Return the counters of another alias."""
        return Counters(alias)

    def __repr__(self) -> str:
        """Return the alias, and nothing of its settings, which may hold secrets."""
        return f"<Counters {self.alias}>"

    @property
    def settings(self) -> CounterSettings:
        """Return the alias's settings. Raises ImproperlyConfigured if they are wrong."""
        return context_of(self.alias).settings

    @property
    def fail_open(self) -> bool:
        """Return the option FAIL_OPEN."""
        return self.settings.fail_open

    @property
    def session(self) -> Session:
        """Return the connection, which aliases with the same connection options share."""
        return context_of(self.alias).session

    @property
    def stream(self) -> CounterStream:
        """Return the counter stream, whose operations are steps for a driver to run."""
        return context_of(self.alias).stream

    def incr(self, name: Name, n: int = 1) -> int | None:
        """Add an integer to a counter, exactly once, and return its new total.

        One round trip. Raises CounterUnavailable if the server does not acknowledge the increment
        within DEADLINE. Its attribute ``may_have_happened`` says whether the increment may have
        been applied. Raises TypeError if n is not an integer, and InvalidKey, a ValueError, if the
        name is not valid. FAIL_OPEN: return None.
        """
        return self._run(self._incr(name, n), away=None)

    async def aincr(self, name: Name, n: int = 1) -> int | None:
        """Async version of incr()."""
        return await self._arun(self._incr(name, n), away=None)

    def _incr(self, name: Name, n: int = 1) -> Steps[int]:
        return (yield from self.stream.incr(_cached_subject_of(name), n))

    def get_many(self, names: Iterable[N]) -> dict[N, int | None]:
        """Return the totals of counters by name. The total of a counter never changed is 0.

        One round trip for each 1,024 counters. If what is stored for a counter is not a total, its
        value is None, and that is logged once. ``Counter.value()`` says what is wrong with it.
        FAIL_OPEN: None for each.
        """
        return self._run(self._get_many(names))

    async def aget_many(self, names: Iterable[N]) -> dict[N, int | None]:
        """Async version of get_many()."""
        return await self._arun(self._get_many(names))

    def _get_many(self, names: Iterable[N]) -> Steps[dict[N, int | None]]:
        subjects = {name: subject_of(name) for name in names}
        found: dict[N, Any] = dict.fromkeys(subjects)  # names may be an iterator
        try:
            totals = yield from self.stream.get_many(list(subjects.values()))
        except AWAY as error:
            if not self.fail_open:
                raise
            note_hidden(error)
        else:
            found = {name: totals[subject] for name, subject in subjects.items()}
        return found

    def matching(self, pattern: str) -> dict[Name, int]:
        """Return the totals of all counters whose names match a pattern, by name.

        In a pattern, a token ``*`` stands for any one token, and a last token ``>`` for one or
        more. The name of a counter is a tuple if one of its tokens contains a dot. Counters that
        other programs have stored under subjects that are not valid names are left out. So are
        counters that cannot be read, which is logged. FAIL_OPEN: return an empty dict.
        """
        return self._run(self._matching(pattern), away={})

    async def amatching(self, pattern: str) -> dict[Name, int]:
        """Async version of matching()."""
        return await self._arun(self._matching(pattern), away={})

    def _matching(self, pattern: str) -> Steps[dict[Name, int]]:
        totals = yield from self.stream.matching(keys.counter_filter(pattern))
        found: dict[Name, int] = {}
        for subject, total in totals.items():
            name = _name_of(subject)
            if name is not None and total is not None:
                found[name] = total
        return found

    def total(self, pattern: str) -> int | None:
        """Return the sum of all counters whose names match a pattern, as in matching().

        Counters that cannot be read are left out, which is logged. FAIL_OPEN: return None.
        """
        return self._run(self._total(pattern), away=None)

    async def atotal(self, pattern: str) -> int | None:
        """Async version of total()."""
        return await self._arun(self._total(pattern), away=None)

    def _total(self, pattern: str) -> Steps[int]:
        return (yield from self.stream.total(keys.counter_filter(pattern)))

    # Write-behind ----------------------------------------------------------------------------

    def incr_later(self, name: Name, n: int = 1) -> None:
        """Add an integer to a counter, exactly once, in the background.

        The increment is added to others in this process, and published within about FLUSH_INTERVAL
        seconds. The call does not wait for the server, so it has no async version. Increments that
        are still pending when the process is killed are lost: see flush().

        Raises CounterUnavailable if MAX_PENDING other counters are pending, TypeError if n is not
        an integer, and InvalidKey, a ValueError, if the name is not valid. FAIL_OPEN: drop the
        increment if MAX_PENDING other counters are pending.
        """
        write_behind.backlog(self.alias).add(_cached_subject_of(name), n)

    def flush(self, timeout: float | None = None) -> None:
        """Publish what incr_later() has added in this process so far, for this alias.

        ``timeout`` is in seconds, by default DEADLINE. Raises CounterUnavailable if an increment
        is not acknowledged within it, and the server's error if one is refused. These increments
        stay pending. FAIL_OPEN: return all the same when the server is unavailable.
        """
        try:
            seconds = self.settings.stream.deadline if timeout is None else timeout
            write_behind.backlog(self.alias).flush(seconds)
        except AWAY as error:
            if not self.fail_open:
                raise
            note_hidden(error)

    async def aflush(self, timeout: float | None = None) -> None:
        """Async version of flush(). It waits in a thread, and does not block the event loop."""
        await asyncio.to_thread(self.flush, timeout)

    @property
    def pending(self) -> Pending:
        """Return what incr_later() has added in this process and is not published yet."""
        return write_behind.backlog(self.alias).pending


class AliasContext(NamedTuple):
    """The settings of an alias, its connection and its stream."""

    settings: CounterSettings
    session: Session
    stream: CounterStream


_contexts: dict[str, AliasContext] = {}


def context_of(alias: str) -> AliasContext:
    """Return the context of an alias. Its settings are read once, until they change.

    Raises ImproperlyConfigured if they are wrong.
    """
    context = _contexts.get(alias)
    if context is not None:
        connection = context.settings.connection
        if connection.embedded is None or not is_outdated(connection):
            return context
    settings = counter_settings(alias)
    session = process.session(settings.connection)
    stream = process.counter_stream(settings.connection, settings.stream)
    warn_of_named_server(f'NATS_COUNTERS["{alias}"]', settings.connection)
    context = _contexts[alias] = AliasContext(settings, session, stream)
    return context


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in ("NATS_COUNTERS", "DEBUG", "BASE_DIR"):
        _contexts.clear()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_nats.counters")

counters = Counters()
