"""The errors that the server reports on lines of their own (-ERR), and what each of them ends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from ...exceptions import LimitReached, NotSent
from ...realtime import monotonic
from .driver_errors import explain, without_key
from .pending import Outstanding

logger = logging.getLogger("django_nats")

_TOO_MANY = "maximum subscriptions exceeded"
_QUIET_S = 10.0
"""How long no further warning of a refused request follows the last one."""


class ErrorLines:
    """Ends the requests and feeds that the server refuses, and leaves the connection to others.

    All its methods run on the loop's thread.
    """

    def __init__(self, outstanding: Outstanding, lose: Callable[[Exception], None]) -> None:
        """``lose`` is called with an error after which no answer can arrive."""
        self._outstanding = outstanding
        self._lose = lose
        self.opened = False
        """Whether the server has accepted the inbox. Before that, its refusal is in the next."""
        self.inbox_refusal: LimitReached | None = None
        self._logged_at = -math.inf
        """When a refused request was last logged, on the monotonic clock."""

    def takes(self, text: str) -> bool:
        """Handle a line that is about a limit of subscriptions. Return False for any other.

        nats-py would close the connection. The server does not say which subscription it means.
        """
        if _TOO_MANY not in text:
            return False
        error = LimitReached(
            f"The server refused a subscription: {_TOO_MANY}. Each near cache, "
            "watch() and listing of keys takes one: raise max_subscriptions of the server, or the "
            "limit of the account."
        )
        if self.opened:
            keys = self._outstanding.with_inboxes()
            self._outstanding.subscriptions.refuse_unheard(error)
            # Behind the UNSUB lines of the subscriptions that have ended: the callers of these
            # requests may ask again at once.
            asyncio.get_running_loop().call_soon(self._outstanding.refuse_keys, keys, error)
        else:
            self.inbox_refusal = error
        return True

    def not_permitted(self, error: Exception, inbox: str) -> None:
        """Take note of a missing permission. ``inbox`` is the prefix of the inbox's subjects."""
        message, inbox = str(error).lower(), inbox.lower()
        if f'"{inbox}*"' in message:
            if self.opened:  # otherwise open() raises it
                self._lose(inbox_refused(error))
            return
        if self._outstanding.subscriptions.refuse(message):
            return
        if inbox not in message and monotonic() - self._logged_at >= _QUIET_S:
            self._logged_at = monotonic()
            text = without_key(explain(error))
            logger.warning("The NATS server refused a request: %s", text)
        self._outstanding.refuse(message)


def inbox_refused(error: Exception) -> NotSent:
    """Return the error for a connection on which no answer can arrive."""
    return NotSent(f"{error} (INBOX_PREFIX is where answers come in)")
