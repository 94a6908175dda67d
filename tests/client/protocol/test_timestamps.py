from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client.protocol.timestamps import epoch
from django_nats.exceptions import UnexpectedReply


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"1970-01-01T00:01:00.5Z", 60.5),
        (b"1970-01-01T00:00:01.000001Z", 1.000001),
        (b"1970-01-01T00:00:01.123456789Z", 1.123456789),
        (b"2026-01-02T03:04:05Z", 1767323045),
    ],
)
def test_epoch_returns_seconds(stamp: bytes, seconds: float) -> None:
    assert epoch(stamp) == pytest.approx(seconds, abs=1e-6)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc)),
    st.integers(0, 10**9 - 1),
)
def test_epoch_is_exact_to_the_microsecond(moment: datetime, nanoseconds: int) -> None:
    moment = moment.replace(microsecond=0)
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z".encode()
    expected = moment + timedelta(microseconds=nanoseconds / 1000)
    assert abs(epoch(stamp) - expected.timestamp()) < 2e-6


@pytest.mark.parametrize(
    "stamp",
    [
        b"",
        b"yesterday",
        b"2026-01-02T03:04:05+01:00",
        b"2026-13-02T03:04:05Z",
        b"2026-01-02T03:04:05",
        b"2026-01-02T03:04:05.5",
        b"2026-01-02T03:04:-1Z",
        b"2026-01-02T03:04:61Z",
        b"2026-01-02T03:04:1e9Z",
        b"2026-01-02T03:04:infZ",
        b"2026-01-02T03:04:nanZ",
        b"2026-W01-1T03:04:05Z",
        b"20260102T030405Z",
        b"1969-12-31T23:59:59Z",
        b"2262-01-01T00:00:00Z",
        b"9999-01-02T03:04:05Z",
        b"99999-01-02T03:04:05Z",
        b"\xff026-01-02T03:04:05Z",
    ],
)
def test_anything_else_is_refused(stamp: bytes) -> None:
    with pytest.raises(UnexpectedReply, match="not a time"):
        epoch(stamp)
