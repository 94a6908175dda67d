"""The headers of a value: its format, and when it expires."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from django_nats.client.kv.entry import Write, format_of
from django_nats.client.protocol import wire

STORED = 1_800_000_000.0
"""Seconds since 1970."""
_ROUNDING = 1e-5
"""Seconds, many times what a float of today's time is rounded by."""


def as_kept(expires: float) -> float:
    """Return when a value expires that was written to expire with an earlier one."""
    write = Write(b"1", "json", 100.0, expires)
    _, moment = format_of(write.fields()[wire.FORMAT_HEADER].encode(), STORED)
    assert moment is not None
    return moment


@given(st.floats(STORED + 1, STORED + 1e8))
@example(STORED + 70.0006)
def test_a_value_that_keeps_its_timeout_does_not_outlive_the_earlier_one(expires: float) -> None:
    """Otherwise ttl() would return 71 seconds right after set() for 70, and incr()."""
    kept = as_kept(expires)
    assert expires - 0.001 - _ROUNDING < kept <= expires + _ROUNDING


@given(st.floats(STORED + 1, STORED + 1e8))
def test_a_timeout_that_is_kept_again_stays(expires: float) -> None:
    kept = as_kept(expires)
    assert as_kept(kept) == kept
