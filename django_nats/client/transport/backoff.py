"""How long to wait before the next attempt to connect.

All processes of a site lose their server at the same moment. Two kinds of attempt are cheap for
the servers, and so follow quickly: the first one, and one that finds no listening socket, as
while a server restarts. An attempt that reaches a proxy that hangs up, or a server that refuses
the login, causes work there, and is repeated slowly. Every pause is random, so that the processes
do not reconnect together.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import Protocol

from ...realtime import monotonic
from .driver_errors import explain
from .progress import NoAnswer, TLSRefused

_FIRST_S = 0.05
"""Longest pause after the first quick attempt. It doubles with each further one."""
_RESTART_S = 3.0
"""How long a server that is down is assumed to be restarting."""
_MAX_IN_RESTART_S = 0.4
"""Longest pause between attempts during that time."""
_FEW_CLIENTS = 25
"""A server that has taken no more connections since its start cannot be overrun by clients."""
_AT_ONCE_SHARE = 0.55
"""Share of a larger number of clients that try at once if there is only one server."""
_LATER_S = 1.2
"""How much later the others try.

It is more than a second, so that not all clients try in the same second even if some are late.
"""
_FIRST_REFUSED_S = 1.0
"""Longest pause after the first refusal. It doubles with each further one."""
_STEADY_S = 5.0
"""How long a connection must have lasted to count as a success."""
_NOT_REACHED = {
    errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
"""Errors of addresses that this machine cannot reach: a name may have one of a kind it lacks."""
_REFUSALS = (
    "authorization violation",
    "authentication expired",
    "authentication revoked",
    "permissions violation",
)


class Chance(Protocol):
    """The part of random.Random that is needed here."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between two others."""


class Backoff:
    """Computes the pauses of one session from what has happened to its connections."""

    def __init__(
        self,
        max_wait: float,
        max_refused_wait: float,
        chance: Chance | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Begin with no attempts. ``max_wait`` and ``max_refused_wait`` are in seconds."""
        self._max_wait = max_wait
        self._max_refused_wait = max_refused_wait
        # Not the random module's state, which is the user's: seeded, and watched by tests.
        self._chance = chance or SystemRandom()
        self._clock = clock or monotonic
        self._quick = self._refused = 0
        self._down_since: float | None = None

    def lost(self, lived: float, number: int, servers: int) -> float:
        """Return the pause in seconds after a connection was lost.

        ``lived`` is how long it lasted, in seconds. ``number`` is how many connections the server
        had taken when this one was made, or 0 if that is unknown. ``servers`` is how many servers
        there are to choose from.
        """
        if lived >= _STEADY_S:
            self._quick = self._refused = 0
        self._down_since = self._clock()
        pause = self._next_quick(self._max_wait)
        is_crowd = servers <= 1 and not 0 < number <= _FEW_CLIENTS
        if is_crowd and self._chance.random() >= _AT_ONCE_SHARE:
            pause += _LATER_S
        return min(pause, self._max_wait)

    def failed(self, failures: Sequence[Exception]) -> float:
        """Return the pause in seconds after a failed attempt, given an error for each server."""
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        if any(is_refusal(each) for each in failures):
            pause = min(_FIRST_REFUSED_S * 2**self._refused, self._max_refused_wait)
            if pause < self._max_refused_wait:
                self._refused += 1
            return self._chance.uniform(pause / 2, pause)
        if all(map(_is_unreached, failures)) and any(
            isinstance(each, ConnectionRefusedError) for each in failures
        ):
            is_restart = now - self._down_since < _RESTART_S
            return self._next_quick(
                min(_MAX_IN_RESTART_S, self._max_wait) if is_restart else self._max_wait
            )
        return self._chance.uniform(self._max_wait / 4, self._max_wait)

    def _next_quick(self, max_wait: float) -> float:
        pause = min(_FIRST_S * 2**self._quick, max_wait)
        if pause < max_wait:
            self._quick += 1
        return self._chance.uniform(0, pause)


def _is_unreached(error: Exception) -> bool:
    """Return True if an attempt has reached no server, and so caused no work."""
    if isinstance(error, (ConnectionRefusedError, NoAnswer)):
        return True
    return isinstance(error, OSError) and error.errno in _NOT_REACHED


def is_refusal(error: Exception) -> bool:
    """Return True if the server answered, and one side does not accept the other."""
    text = explain(error).lower()
    return isinstance(error, (ssl.SSLError, TLSRefused)) or any(each in text for each in _REFUSALS)
