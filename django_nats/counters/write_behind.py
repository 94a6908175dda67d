"""The write-behind backlogs of this process, one for each alias, until the process ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from weakref import WeakSet

from django.core.signals import setting_changed

from ..client.transport import forks
from ..conf.connection import warn_of_named_server
from ..conf.counters import counter_settings
from ..exceptions import ReadOnlyCounter
from ..realtime import monotonic
from . import endings
from .backlog import Backlog

_EXIT_TIMEOUT_S = 3.0

_backlogs: dict[str, Backlog] = {}
_all_backlogs: WeakSet[Backlog] = WeakSet()
"""Includes the backlogs of replaced settings, for as long as they have something to publish."""
_lock = threading.Lock()


def backlog(alias: str) -> Backlog:
    """Return the backlog of an alias, without asking the server.

    Raises ImproperlyConfigured if the alias cannot be configured, and ReadOnlyCounter if it is a
    sum of SOURCES.
    """
    opened = _backlogs.get(alias)
    if opened is None or opened.is_outdated:
        opened = _open(alias)
    return opened


def _open(alias: str) -> Backlog:
    settings = counter_settings(alias)
    if settings.stream.sources:
        raise ReadOnlyCounter(
            f"The counters of the stream {settings.stream.stream} are the sums of its SOURCES: "
            "change a counter of one of those."
        )
    with _lock:
        if alias not in _backlogs or _backlogs[alias].is_outdated:
            warn_of_named_server(f'NATS_COUNTERS["{alias}"]', settings.connection)
            endings.watch()
            _backlogs[alias] = opened = Backlog(settings)
            _all_backlogs.add(opened)
            if _ended:
                opened.finish(0)
        return _backlogs[alias]


def forget(alias: str, counters: Iterable[str]) -> None:
    """Drop what counters, named by their subjects, have pending in this process."""
    opened = _backlogs.get(alias)
    if opened is not None:
        opened.forget(counters)


def discard() -> None:
    """Drop all that is pending in this process, for every alias. For tests."""
    for each in list(_all_backlogs):
        each.discard()


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in ("NATS_COUNTERS", "DEBUG", "BASE_DIR"):
        _backlogs.clear()  # a replaced backlog still publishes what it has, to its old stream


setting_changed.connect(_on_setting_changed, dispatch_uid="django_nats.counters.write_behind")


_ended = False


def at_exit(*args: object, **kwargs: object) -> None:
    """Publish what all aliases have pending, at the end of the process.

    Takes at most three seconds. What cannot be published is logged. Nothing is raised. Most
    processes call this themselves at their end. Connect it to a hook in those that end with
    ``os._exit()``. The arguments that a hook passes are ignored.
    """
    global _ended
    _ended = True
    until = monotonic() + _EXIT_TIMEOUT_S
    for each in list(_all_backlogs):
        each.finish(max(0, until - monotonic()))


def _after_fork() -> None:
    global _lock, _ended
    _lock, _ended = threading.Lock(), False
    _backlogs.clear()
    for each in list(_all_backlogs):
        each.after_fork()


# Registered after the client's own functions at exit, which therefore run later: publishing needs
# the connection.
forks.call_in_child(_after_fork)
endings.call_at_end(at_exit)
