"""The clock of this package. Libraries that freeze time in tests do not change it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float]
"""Return the seconds of real time since some moment in the past.

freezegun replaces ``time.monotonic``, and every imported name for it, with a clock that stands
still. Then no deadline would ever pass, and a clock offset that is measured at one frozen moment
would be wrong at the next one. Neither freezegun nor time-machine changes this clock.
"""

if hasattr(time, "clock_gettime"):
    # The clock that time.monotonic reads. It has another name on macOS.
    monotonic = partial(time.clock_gettime, getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC))
else:
    # Windows: this is real time as well if the module is imported before a test freezes time.
    monotonic = partial(time.monotonic)
