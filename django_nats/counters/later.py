"""What this process has still to add to counters: an alias each, up to its end, and not beyond."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterable
from time import monotonic
from weakref import WeakSet

from django.core.signals import setting_changed

from ..conf.counters import counter_settings
from ..exceptions import ReadOnlyCounter
from .backlog import Backlog

_FAREWELL = 3.0  # seconds

_backlogs: dict[str, Backlog] = {}
_all: WeakSet[Backlog] = WeakSet()
"""Those of settings that were replaced, too, as long as they have something to publish."""
_opening = threading.Lock()


def backlog(alias: str) -> Backlog:
    """What an alias has pending. Raises ImproperlyConfigured, ReadOnlyCounter; opens nothing."""
    try:
        return _backlogs[alias]
    except KeyError:
        return _open(alias)


def _open(alias: str) -> Backlog:
    settings = counter_settings(alias)
    if settings.stream.sources:
        raise ReadOnlyCounter(
            f"The counters of the stream {settings.stream.stream} are the sums of those of its "
            "SOURCES: change one of them."
        )
    with _opening:
        if alias not in _backlogs:
            _watch_the_end()
            _backlogs[alias] = opened = Backlog(settings)
            _all.add(opened)
            if _ended:
                opened.finish(0)
        return _backlogs[alias]


def forget(alias: str, counters: Iterable[str]) -> None:
    """Forget what counters, by their subjects, have pending in this process."""
    opened = _backlogs.get(alias)
    if opened is not None:
        opened.forget(counters)


def discard() -> None:
    """Forget all that is pending in this process, of every alias: for tests."""
    for each in list(_all):
        each.discard()


def _forget_settings(*, setting: str, **kwargs: object) -> None:
    if setting in ("NATS_COUNTERS", "DEBUG", "BASE_DIR"):
        _backlogs.clear()  # what is pending goes where it was meant to


setting_changed.connect(_forget_settings, dispatch_uid="django_nats.counters.later")


_watching = _ended = False


def _watch_the_end() -> None:
    """Children of multiprocessing, and of Celery, end without what atexit would call."""
    global _watching
    if _watching:
        return
    _watching = True
    for name in ("multiprocessing.util", "billiard.util"):
        module = sys.modules.get(name)
        if module is not None:
            module.Finalize(None, _at_exit, exitpriority=0)


def _at_exit() -> None:
    global _ended
    _ended = True
    until = monotonic() + _FAREWELL
    for each in list(_all):
        each.finish(max(0, until - monotonic()))


def _after_fork() -> None:
    global _opening, _watching, _ended
    _opening, _watching, _ended = threading.Lock(), False, False
    _backlogs.clear()
    for each in list(_all):
        each.after_fork()


# After the bridge's own, whose functions at exit are called after these.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
