"""Exceptions raised between two instructions of a thread, as by a signal handler."""

from __future__ import annotations

import dis
import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# The interpreter runs no signal handler before these instructions, for example between taking a
# lock and entering its with block. _LEAVES_WITH begins the exit of such a block.
_NEVER_BEFORE = {"NOP", "SETUP_FINALLY", "SETUP_WITH", "BEFORE_WITH", "POP_TOP", "POP_BLOCK"}
_LEAVES_WITH = "LOAD_CONST"


class Interruption(Exception):
    """An exception raised from outside, like Celery's soft time limit. It must not be caught."""


def interrupted(function: Callable[[], object], at: int, within: str) -> str:
    """Call a function and interrupt it at the given line.

    Only lines of files whose path begins with ``within`` are counted. Return the place of the
    interruption, or an empty string if fewer lines were run. Other errors are raised.
    """

    def interrupt(place: str) -> None:
        raise Interruption(place)

    try:
        disturb(function, at, within, interrupt)
    except Interruption as error:
        return str(error)
    return ""


def disturb(
    function: Callable[[], object], at: int, within: str, other: Callable[[str], object]
) -> None:
    """Call a function, and another one before the given line of it, as a finalizer runs.

    Lines are counted as in interrupted(). ``other`` gets the place.
    """
    left = at

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith(within):
            return None
        if event == "line" and _may_be_interrupted(frame):
            left -= 1
            if left == 0:
                other(f"{code.co_filename}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)


def _may_be_interrupted(frame: FrameType) -> bool:
    instruction = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    if instruction == _LEAVES_WITH:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        return not line.lstrip().startswith("with ")
    return instruction not in _NEVER_BEFORE
