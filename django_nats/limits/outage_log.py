"""What the log says of a limit whose hits cannot be counted."""

from __future__ import annotations

import logging
from math import inf

from ..exceptions import NatsError
from ..realtime import monotonic

logger = logging.getLogger("django_nats")

_QUIET_S = 10.0
"""How long after the beginning of an outage no further one is logged."""


class OutageLog:
    """Logs the beginning and the end of an outage, a line each, however many hits it has."""

    def __init__(self, who: str) -> None:
        """Log what happens to ``who``, such as ``Limit('api')``."""
        self._who = who
        self.forget()

    def forget(self) -> None:
        """Begin without an outage: the server may be another one."""
        self._is_away = False
        self._quiet_until = -inf

    def begin(self, error: NatsError, *, allowed: bool) -> None:
        """Note that a hit was not counted, and whether it was let through."""
        now = monotonic()
        if not self._is_away and now >= self._quiet_until:
            self._is_away, self._quiet_until = True, now + _QUIET_S
            what = "let through" if allowed else "refused"
            logger.warning("%s: hits are %s, and not counted: %s", self._who, what, error)

    def end(self) -> None:
        """Note that a hit was counted."""
        if self._is_away:
            self._is_away = False
            logger.warning("%s: hits are counted again", self._who)
