"""The time on the server, by which values expire, whatever the time on this machine."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Any

from ..exceptions import ServerError
from . import wire
from .exchange import raise_error
from .messages import Messages
from .opening import C, Server
from .recent import Recent
from .steps import Request, Steps
from .wire import Reply

CLOCK_REFRESH = 60.0
_GOOD_ENOUGH = 0.05  # seconds between question and answer


class Timed(Messages[C]):
    """What knows its server's clock: learnt when the stream is opened, and by the minute."""

    def __init__(self, config: C, server: Server, recent: Recent) -> None:
        super().__init__(config, server, recent)
        self._clock = 0.0
        self._clock_due = 0.0

    @property
    def clock(self) -> float:
        """What the server's time, in seconds since 1970, is ahead of the monotonic clock."""
        return self._clock

    def now(self) -> float:
        """Seconds since 1970 on the server's clock."""
        return monotonic() + self._clock

    def now_at_least(self, stored: float) -> float:
        """The time, and not before that of a message which has been read: the estimate learns."""
        now = monotonic() + self._clock
        if now < stored:
            self._clock = stored - monotonic()
            return stored
        return now

    def info(self) -> Steps[dict[str, Any] | None]:
        for estimate in ("first", "better"):
            sent = monotonic()
            reply = yield self._info_request()
            document = self._told(reply)
            if document is None:
                return None
            self._set_clock(reply, sent)
            # The first wait may include connecting: too loose a measure for a clock.
            if estimate == "better" or monotonic() - sent < _GOOD_ENOUGH:
                break
        return document

    def ask(self, request: Request) -> Steps[Reply]:
        if not self.is_ready:
            yield from self.ready()
        if monotonic() > self._clock_due and self.writes.fault is None:
            reply = yield from self._ask_with_time(request)
        else:
            reply = yield request
        return (yield from self._again(request)) if wire.is_without_stream(reply) else reply

    def _ask_with_time(self, request: Request) -> Steps[Reply]:
        """The request, and in the same write a question for the time on the server."""
        sent = monotonic()
        self._clock_due = sent + CLOCK_REFRESH
        reply, info = yield [request, self._info_request()]
        if isinstance(info, Reply):
            with suppress(ServerError):  # the stream may be gone: the request's own reply tells
                self._set_clock(info, sent)
        answer: Reply = raise_error(reply)
        return answer

    def _set_clock(self, reply: Reply, sent: float) -> None:
        """Estimate the server's clock against this process's monotonic one, halfway between."""
        stamp = wire.parse_api(reply).get("ts")
        if stamp is not None:
            received = monotonic()
            clock = wire.epoch(stamp.encode()) - (sent + received) / 2
            # What a slow answer leaves open, an earlier and quicker one may have told.
            if abs(clock - self._clock) > (received - sent) / 2:
                self._clock = clock
            self._clock_due = received + CLOCK_REFRESH
