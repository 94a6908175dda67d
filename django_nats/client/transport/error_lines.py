"""The errors that the server reports on lines of their own (-ERR), and what each of them ends."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import ssl
from collections.abc import Callable
from typing import Any

from ...exceptions import LimitReached, NotSent
from ...printable import printable
from ...realtime import monotonic
from .driver_errors import explain
from .pending import Outstanding

logger = logging.getLogger("django_nats")

_TOO_MANY = "maximum subscriptions exceeded"
_QUIET_S = 10.0
"""How long no further warning of a refused request follows the last one."""
_MAX_BYTES = 4096


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
            self._outstanding.refuse_subscriptions(error)
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
        if self._outstanding.refuse_following(message):
            return
        if inbox not in message and monotonic() - self._logged_at >= _QUIET_S:
            self._logged_at = monotonic()
            logger.warning("The NATS server refused a request: %s", explain(error))
        self._outstanding.refuse(message)


def inbox_refused(error: Exception) -> NotSent:
    """Return the error for a connection on which no answer can arrive."""
    return NotSent(f"{error} (INBOX_PREFIX is where answers come in)")


class LastWords:
    """What a server says that refuses a connection before the client has logged in.

    The server sends an error after its INFO, and closes. The login then meets a closed socket, and
    asyncio reports that in place of what had arrived before.
    """

    def __init__(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        """Take the streams of a connection, which asyncio may close. Call close() in the end."""
        self._reader = reader
        self._descriptor = os.dup(writer.get_extra_info("socket").fileno())

    def refusal(self, failure: OSError) -> NotSent | None:
        """Return the error to raise for a failed login, or None if the server has said nothing."""
        if words := self.read():
            return NotSent(f"the server refused the connection: {words}")
        if isinstance(failure, ssl.SSLError) and failure.reason == "WRONG_VERSION_NUMBER":
            # The words came after TLS had begun, which took them for a record of its own.
            return NotSent(
                "the server answers the TLS handshake in plain text, as one does that allows no "
                "more connections (max_connections)"
            )
        return None

    def read(self) -> str:
        """Return the error that has arrived, or an empty string."""
        unread = bytes(getattr(self._reader, "_buffer", b""))
        try:
            unread += os.read(self._descriptor, _MAX_BYTES)
        except OSError:
            pass  # nothing is there, or the connection was reset
        for line in unread[:_MAX_BYTES].split(b"\r\n"):
            if line.startswith(b"-ERR"):
                return printable(line[4:].strip(b" '").decode("utf-8", "replace"))
        return ""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
