"""Streams that the server refuses to open: the error to raise, and one log line for all of them."""

from __future__ import annotations

import logging

from ...exceptions import LimitReached, NoLeader, NotServed, ServerError
from ..protocol.server_errors import NOT_ENABLED_HINT, reworded
from .api import DEFAULT_PREFIX
from .config import StreamConfig

logger = logging.getLogger("django_nats")


class Refusals:
    """The errors with which one stream cannot be opened.

    FAIL_OPEN may hide those that count as outages, so the log is the only place to notice.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self._is_refused = False

    def creation(self, refusal: ServerError) -> ServerError:
        """Return the error to raise when the server refuses to create the stream."""
        return reworded(refusal, f"The {self._config.title} cannot be created: {refusal}")

    def opening(self, refusal: NotServed) -> ServerError:
        """Return the error to raise when the server does not serve the stream."""
        return reworded(refusal, f"The {self._config.title} is not served: {refusal}")

    def not_enabled(self, *, was_open: bool) -> ServerError:
        """Return the error to raise when no server answers requests to JetStream.

        A stream that was open before may be served again in a moment, and is waited for.
        """
        config = self._config
        if config.domain is not None:
            problem = (
                f"no JetStream of the domain {config.domain} answers. The server that is connected "
                "to must be in this domain, or a leaf node that is linked to it, with the same "
                "account at both ends. Otherwise correct JS_DOMAIN."
            )
        elif config.api_prefix != DEFAULT_PREFIX:
            problem = (
                f"no JetStream answers under {config.api_prefix}. The account must import its API "
                "under that prefix, from an account with JetStream, on servers that enable it. "
                "Otherwise correct JS_API_PREFIX."
            )
        else:
            problem = (
                "JetStream is not enabled on the NATS server, or not for this account. "
                f"{NOT_ENABLED_HINT} If a leaf node is to use the JetStream of its hub, set "
                "JS_DOMAIN to the hub's domain."
            )
        return (NoLeader if was_open else NotServed)(
            f"The {config.title} is not served: {problem}", code=503
        )

    def note(self, refusal: ServerError) -> None:
        """Log the first refusal of an outage."""
        if isinstance(refusal, (NotServed, LimitReached)) and not self._is_refused:
            self._is_refused = True
            logger.warning("%s", refusal)

    def end(self) -> None:
        """Log that the stream is served, if it was refused before."""
        if self._is_refused:
            self._is_refused = False
            logger.warning("The %s is served again", self._config.title)
