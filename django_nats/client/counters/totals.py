"""Totals: what the stored message of a counter counts, and what to do if that cannot be read."""

from __future__ import annotations

import logging
import re

from ...exceptions import Unreadable
from ...printable import printable
from ..protocol.wire import Message
from .digits import integer_of

logger = logging.getLogger("django_nats")

_TOTAL = re.compile(rb'\A\{"val":\s*"(-?\d+)"\}\Z')
_MAX_LOGGED = 1000
"""Counters for which a process logs that they cannot be read; further ones are not logged."""


class Totals:
    """Reads totals of the counters of one stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._logged: set[str] = set()

    def of(self, counter: str, message: Message | None) -> int:
        """Return what a message counts; 0 if there is none. Raises Unreadable."""
        if message is None:
            return 0
        total = _TOTAL.match(message.payload)
        if total is None:
            raise self.not_a_counter(counter)
        return self.integer(counter, total[1])

    def in_list(self, counter: str, message: Message) -> int | None:
        """Return what a message counts. If that cannot be read, return None, and log it once."""
        try:
            return self.of(counter, message)
        except Unreadable as error:
            self.log_once(counter, f"A counter is left out of lists and sums: {error}")
            return None

    def text_of(self, subject: bytes) -> str:
        """Return the subject of a counter as text.

        No counter's name is written as a subject that is not UTF-8: log that once.
        """
        try:
            return subject.decode()
        except UnicodeDecodeError:
            text = text_of_subject(subject)
            self.log_once(
                text,
                f"The stream {self._stream} has a counter under a subject that is not UTF-8 and "
                f"cannot be read by name: {printable(text)}",
            )
            return text

    def integer(self, counter: str, digits: bytes) -> int:
        """Return the integer that digits stand for. Raises Unreadable if they are too many."""
        try:
            return integer_of(digits)
        except ValueError as error:
            raise Unreadable(
                f"The counter {printable(counter)} of the stream {self._stream} has more digits "
                f"than are read here. ({error})"
            ) from error

    def not_a_counter(self, counter: str) -> Unreadable:
        """Return the error for a message that does not count."""
        return Unreadable(
            f"What the stream {self._stream} last stored for {printable(counter)} is not a "
            "counter. Reset it to begin again from 0."
        )

    def log_once(self, counter: str, problem: str) -> None:
        """Log what is wrong with a counter, but not at every reading."""
        if counter not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(counter)
            logger.warning("%s", problem)


def text_of_subject(subject: bytes) -> str:
    """Return a subject as text, with surrogates for bytes that are not UTF-8."""
    return subject.decode("utf-8", "surrogateescape")
