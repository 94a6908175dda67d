"""The server's clock, by which values expire, whatever the time on this machine."""

from __future__ import annotations

from math import inf

from ...realtime import monotonic
from ..protocol import documents, wire
from ..protocol.timestamps import epoch
from ..protocol.wire import Reply

REFRESH_S = 60.0
_RETRY_S = 1.0
"""After an answer that took much longer than the quickest one: its estimate is imprecise. The time
doubles with each, in case the server is further away than it was."""
_GOOD_ENOUGH_S = 0.05
"""An estimate from an answer that came within this time need not be repeated at once."""
_MOST_AHEAD_S = 86400.0
"""The estimate is not corrected by a message that is ahead of it by more."""


class Clock:
    """An estimate of the server's clock, against this process's monotonic clock.

    The stream measures it when it is opened, and then once a minute, by the ``ts`` of STREAM.INFO.
    A message that was stored later than the estimated time corrects it as well.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        """Seconds since 1970 on the server's clock, less the time of the monotonic clock."""
        self.due = 0.0
        """When a request should ask for the time as well, by the monotonic clock."""
        self._quickest_s = inf
        self._retry_s = _RETRY_S

    @property
    def is_known(self) -> bool:
        """Whether the server has said what time it is, on this connection or an earlier one."""
        return self._quickest_s < inf

    def now(self) -> float:
        """Return the seconds since 1970 on the server's clock."""
        return monotonic() + self.offset

    def now_at_least(self, stored: float) -> float:
        """Return the time on the server, which is not before that of a message that was read.

        Correct the estimate by the time of the message. A message that is ahead by more than a
        day was stored by another clock: its time counts for itself alone, since by it every other
        value would have expired. The next request then asks the server for its time.
        """
        now = monotonic() + self.offset
        if now < stored:
            if stored - now > _MOST_AHEAD_S:
                self.due = 0.0
                return stored
            self.offset = stored - monotonic()
            return stored
        return now

    def note_question(self, sent: float) -> None:
        """Note when the server was asked for its time, so that no other request asks as well."""
        self.due = sent + REFRESH_S

    def note_answer(self, reply: Reply, sent: float) -> bool:
        """Estimate the clock from STREAM.INFO: its ``ts`` is taken to be halfway between.

        ``sent`` is when the question was sent, by the monotonic clock. Return False if the answer
        took so long that the server should be asked again: longer than is usual for it, which is
        not known of the first one.
        """
        stamp = wire.parse_api(reply, documents.STREAM)["ts"]
        received = monotonic()
        offset = epoch(stamp.encode()) - (sent + received) / 2
        # An earlier answer that came more quickly may be more precise.
        if abs(offset - self.offset) > (received - sent) / 2:
            self.offset = offset
        took = received - sent
        is_usual = self.is_known and took <= 2 * self._quickest_s
        self._quickest_s = min(self._quickest_s, took)
        if took > 2 * self._quickest_s + _GOOD_ENOUGH_S:
            self.due = received + self._retry_s
            self._retry_s = min(2 * self._retry_s, REFRESH_S)
        else:
            self.due = received + REFRESH_S
            self._retry_s = _RETRY_S
        return is_usual or took < _GOOD_ENOUGH_S
