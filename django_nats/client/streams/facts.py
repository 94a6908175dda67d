"""How long what the server has said of a stream counts."""

from __future__ import annotations

import math

from ...exceptions import NatsError
from ...realtime import monotonic
from ..protocol.steps import Follow
from ..protocol.wire import Reply

FACTS_S = 60.0
"""For how long it counts, unless the server says that the stream was changed."""
_LEAST_FACTS_S = 1.0
"""The same where the stream is changed again and again."""


class Facts:
    """When the server was asked about a stream, and when it is to be asked again."""

    def __init__(self, stream: str) -> None:
        """Take the name of the stream."""
        self._asked = self.due = -math.inf
        updated = f"$JS.EVENT.ADVISORY.STREAM.UPDATED.{stream}"
        self.follow: Follow | None = Follow(updated, self._note_update, self._note_refusal)
        """The subscription to notices of changes; None if the account may not have it."""

    def note_question(self) -> float:
        """Note that the server is about to be asked, and return the time.

        A change that comes from now on counts.
        """
        self._asked = monotonic()
        self.due = self._asked + FACTS_S
        return self._asked

    def expire(self) -> None:
        """Have the next operation ask, as the server has not answered."""
        self.due = 0.0

    def _note_update(self, _: Reply) -> None:
        self.due = min(self.due, self._asked + _LEAST_FACTS_S)

    def _note_refusal(self, _: NatsError) -> None:
        self.follow = None
