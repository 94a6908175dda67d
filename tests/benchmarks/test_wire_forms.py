"""The script reads all values in both forms, with each kind of header."""

from __future__ import annotations

from tests.benchmarks.wire_forms import HEADERS, compare


def test_every_value_is_read_in_both_forms() -> None:
    assert len(compare("memory", 1, 100, rounds=1)) == len(HEADERS)
