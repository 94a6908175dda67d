"""DRF's own tests of throttles that have another outcome here, and why.

DRF keeps a list of the times of a client's requests: each counts for exactly one period. A limit
keeps two numbers, the requests of the current window and those of the one before. In these tests,
windows begin at 0 s. The docs show the same table.
"""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """What a test of DRF's expects, what it finds here, and why."""

    expected: str
    answer: str
    why: str


_FADES = "in the next window, they count less and less until it ends"
_EVEN = "in the next window, they count as if they had come evenly"
_DECIDED = "there is no list of times: a request is decided about, and the wait is known then"

SLIDING = {
    "ThrottlingTests.test_request_throttling_expires": Difference(
        "3 requests at 0 s use up 3/sec until 1 s", "until 1⅓ s", _FADES
    ),
    "ThrottlingTests.test_seconds_fields": Difference(
        "the fourth request at 0 s waits 1 s", "1⅓ s, a Retry-After of 2", _FADES
    ),
    "ThrottlingTests.test_minutes_fields": Difference(
        "the fourth request at 0 s waits 60 s", "80 s", _FADES
    ),
    "ThrottlingTests.test_throttle_rate_change_negative": Difference(
        "6 requests at 0 s use up 6/min for 60 s", "for 70 s", _FADES
    ),
    "ThrottlingTests.test_request_throttling_multiple_throttles": Difference(
        "after 3 requests at 0 s, 3/sec allows 2 at 1 s", "it allows the next at 1⅓ s", _FADES
    ),
    "ThrottlingTests.test_next_rate_remains_constant_if_followed": Difference(
        "3/min allows a request every 20 s",
        "it refuses that at 60 s, and allows that at 80 s",
        _EVEN,
    ),
    "ScopedRateThrottleTests.test_scoped_rate_throttle": Difference(
        "requests at 0, 1 and 2 s use up 3/min until 60 s", "until 80 s", _FADES
    ),
}
"""The tests that fail with the algorithm "sliding", and pass with "fixed"."""

NO_LIST = {
    "SimpleRateThrottleTests.test_wait_returns_correct_waiting_time_without_history": Difference(
        "a throttle whose `history` was set to an empty list waits half a period",
        "`None`, as before any request",
        _DECIDED,
    ),
}
"""The tests that fail with both algorithms."""

MEANINGLESS = {
    "SimpleRateThrottleTests.test_wait_returns_none_if_there_are_no_available_requests": Difference(
        "a throttle whose `history` was set to more requests than the rate allows waits `None`",
        "`None`, as before any request",
        _DECIDED,
    ),
}
"""The tests that pass, but only because they set what is not used here."""
