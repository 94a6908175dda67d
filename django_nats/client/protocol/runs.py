"""Many messages of the same form in a row, read at once.

The answers to a batch come in as hundreds of messages that differ in little. Python code for each
of them takes longer than everything else that a batch costs, so a reader has C code cut and match
them all. It takes only what has exactly the form that it knows, and stops at anything else: the
parser goes on from there, message by message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Protocol, TypeAlias

ReadRun: TypeAlias = Callable[[bytes, int], int]
"""Reads whole messages from a position in the bytes on, and returns the position behind them."""


class RunReader(Protocol):
    """Reads the replies to one request that gathers several.

    It is called on any thread, under the connection's lock. It must not wait or log, and raise
    only what a signal's handler raises. If the request fails, nothing that it has read counts.
    """

    @property
    def count(self) -> int:
        """Return how many replies it has read.

        If the replies end by their number, these count as well.
        """

    def read_run(self, data: bytes, start: int, subject: bytes, sid: bytes) -> int:
        """Read whole replies from a position on, and return the position behind them.

        ``subject`` is that of the reply before, and ``sid`` the id of the subscription. The last
        reply must be left to the parser.
        """


def read_acknowledgements(
    data: bytes, start: int, subjects: Iterable[bytes], sid: bytes, before: bytes, sequence: int
) -> tuple[list[int], int]:
    """Read acknowledgements that look like the one before them, from a position in the bytes on.

    ``before`` is its payload, which ends with its ``sequence`` and a brace. Those that follow must
    come in on these subjects, in this order, and differ in nothing but the digits of the sequence.
    Return their sequences, and the position behind the last one. It takes a quarter of the time in
    which the parser would pass on each of them.
    """
    digits = len(str(sequence))
    lowest = b"1" + b"0" * (digits - 1)
    # The size is the same, as no sequence has more or fewer digits.
    middle = b" %b %d\r\n%b" % (sid, len(before), before[: -digits - 1])
    ends = [start]
    numbers = []
    for subject in subjects:
        head = b"MSG " + subject + middle
        if not data.startswith(head, start):
            break
        at = start + len(head)
        end = at + digits
        if not data.startswith(b"}\r\n", end):
            break
        numbers.append(data[at:end])
        start = end + len(b"}\r\n")
        ends.append(start)
    numbers = list(takewhile(lowest.__le__, takewhile(bytes.isdigit, numbers)))
    return list(map(int, numbers)), ends[len(numbers)]
