"""What to do in forked children, under uWSGI as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

_functions: list[Callable[[], None]] = []
_hook: Callable[[], None] | None = None


def call_in_child(function: Callable[[], None]) -> None:
    """Call a function in every child that this process forks from now on.

    Under uWSGI, the function may be called twice in a row.
    """
    _functions.append(function)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def close_inherited(descriptors: Iterable[int]) -> None:
    """Close descriptors in a child. Objects of the parent may still use their numbers."""
    for descriptor in descriptors:
        if descriptor >= 0:
            # Only this process's descriptor is closed. /dev/null takes its number, so that an
            # object that still uses the number does not reach a file opened later.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor, inheritable=False)
            os.close(null)


def watch_uwsgi() -> None:
    """Add our functions to uWSGI's own hook, if this process is one of uWSGI's.

    By default uWSGI forks its workers without Python's knowledge, so that no function that is
    registered with os.register_at_fork is called. The module "uwsgi" exists only in its
    processes, from their start.
    """
    global _hook
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return
    # uWSGI has one hook, which libraries assign. Another may have replaced ours since.
    current = getattr(uwsgi, "post_fork_hook", None)
    if current is None or current is not _hook:
        uwsgi.post_fork_hook = _hook = _before(current)


def _before(current: Callable[[], object] | None) -> Callable[[], None]:
    """Return a hook that calls our functions, and then the hook that was there."""

    def after_fork() -> None:
        for function in _functions:
            function()
        if current is not None:
            current()

    return after_fork
