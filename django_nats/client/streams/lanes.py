"""The lanes of a stream's requests: requests of one lane time out, and are refused, together."""

from __future__ import annotations

from ...exceptions import NotSent
from ..protocol.steps import Lane, Request
from .api import Api
from .config import StreamConfig
from .server import Server

_API_TIMEOUT_S = 5.0  # creating a replicated stream takes an election
_PROBE_TIMEOUT_S = 0.5


class Lanes:
    """The lanes of one stream.

    Any replica answers ``reads``; only the leader answers ``writes`` and ``questions``. While the
    stream has no leader, ``writes`` has a fault: what needs the leader fails at once, until a probe
    in the background finds one. Requests to the JetStream API (``api``) may take longer.

    ``first_opening``, ``reopening`` and ``questions`` have no probe. Servers that are electing a
    leader may not answer these at all, so they are asked again, and that must not open the circuit.
    """

    def __init__(self, config: StreamConfig, api: Api, server: Server) -> None:
        self._server = server
        timeout = config.request_timeout
        title = config.title
        self.reads = Lane(f"reads of the {title}", timeout)
        self.writes = Lane(f"writes to the {title}", timeout)
        self.questions = Lane(f"questions to the leader of the {title}", _before_repeating(timeout))
        self.api = Lane(f"the JetStream API for the {title}", max(timeout, _API_TIMEOUT_S))
        opening = f"the opening of the {title}"
        longest = max(server.connect_timeout, timeout)
        self.first_opening = Lane(opening, _before_repeating(longest))
        self.reopening = Lane(opening, _before_repeating(timeout))
        probes = Lane(f"a probe of the {title}", min(timeout, _PROBE_TIMEOUT_S))
        self.reads.probe = Request(probes, f"{api.direct_get}.{config.probe}")
        self.writes.probe = Request(probes, api.info)

    def suspend(self, lane: Lane) -> None:
        """Have the requests of a lane fail at once until a probe finds a leader."""
        # A question to the leader fails together with writes, which only the leader takes.
        lane = self.writes if lane is self.questions else lane
        self._server.suspend(lane, f"{lane.name}: the stream has no leader at the moment")

    def require_leader(self) -> None:
        """Raise NotSent if what needs the leader fails at once."""
        if self.writes.fault is not None:
            raise NotSent(self.writes.fault)


def _before_repeating(patience: float) -> float:
    """Return the seconds to wait for one answer, of ``patience`` seconds in all."""
    return max(min(patience, 1.0), patience / 4)
