"""How long what the server has said of a stream counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._pause = _LEAST_FACTS_S
        """For how long the known facts count on if the server does not answer. It doubles."""
        updated = f"$JS.EVENT.ADVISORY.STREAM.UPDATED.{stream}"
        self.follow: Follow | None = Follow(updated, self._note_update, self._note_refusal)
        """The subscription to notices of changes; None if the account may not have it."""

    @contextmanager
    def asking(self) -> Iterator[float]:
        """Ask the server in the body, for all callers. Yield the time.

        A change that comes from now on counts. If there is no answer, or the caller is cancelled,
        the server is asked again after a pause.
        """
        self._asked = monotonic()
        self.due = self._asked + FACTS_S
        try:
            yield self._asked
        except BaseException:
            self.due = min(self.due, monotonic() + self._pause)
            self._pause = min(2 * self._pause, FACTS_S)
            raise
        self._pause = _LEAST_FACTS_S

    def _note_update(self, _: Reply) -> None:
        self.due = min(self.due, self._asked + _LEAST_FACTS_S)

    def _note_refusal(self, _: NatsError) -> None:
        self.follow = None
